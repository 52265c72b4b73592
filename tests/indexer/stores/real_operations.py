"""Operations on the real OpenSearch."""

from __future__ import annotations

import json
from typing import Any

from wazuh_comms_trio.backends.interfaces import DocumentOperation

INDEX = "wazuh-states-fim"


def create(document_id: str, index: str = INDEX, **data: Any) -> DocumentOperation:
    return DocumentOperation("create", index, document_id, json.dumps(data).encode())
