"""Operations of bulk calls, and their outcomes."""

from __future__ import annotations

import json
from typing import Any

from wazuh_comms_trio.backends.interfaces import DocumentOperation

INDEX = "wazuh-states-fim"


def create(document_id: str, **data: Any) -> DocumentOperation:
    return DocumentOperation("create", INDEX, document_id, json.dumps(data).encode())


def update(document_id: str, **data: Any) -> DocumentOperation:
    return DocumentOperation("update", INDEX, document_id, json.dumps(data).encode())


def delete(document_id: str) -> DocumentOperation:
    return DocumentOperation("delete", INDEX, document_id)
