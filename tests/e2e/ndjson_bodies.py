"""Bodies of events for schemathesis, which loads this as its hooks: agents' lines, and what isn't any."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

_METADATA = b'{"agent":{"id":"0194857f-39b5-7bfb-a7bc-c5c6835f03d1","name":"a","groups":[]}}'
_LINES = (
    _METADATA,
    b'{"id":"1","module":"fim","operation":"create"}',
    b'{"id":"1","module":"fim","operation":"delete"}',
    b'{"id":"1","module":"inventory","collector":"packages","operation":"update"}',
    b'{"module":"logcollector","collector":"file"}',
    b'{"file":{"path":"/a"}}',
    b"[1]",
    b"",
    b"\xff",
)

_lines = st.lists(st.sampled_from(_LINES))
_bodies = st.one_of(_lines, _lines.map(lambda lines: [_METADATA, *lines])).map(b"\n".join)
schemathesis.openapi.media_type("application/x-ndjson", st.one_of(_bodies, st.binary()))
