"""The name of a file, in a query."""

from __future__ import annotations

import pytest

from wazuh_comms_trio.api.agent_api.files import file_name
from wazuh_comms_trio.errors import MalformedRequest


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (b"file_name=default.conf", b"default.conf"),
        (b"file_name=", b""),  # what that is, is said by who opens it
        (b"file_name", b""),
        (b"file_name=a+b%20c", b"a+b%20c"),
        (b"x=1&file_name=a=b&y", b"a=b"),
        (b"file_name=%2e%2e/etc", b"%2e%2e/etc"),
    ],
)
def test_file_name_comes_as_it_is(query: bytes, name: bytes) -> None:
    assert file_name(query) == name


@pytest.mark.parametrize("query", [b"", b"filename=a", b"file%5fname=a", b"file_name=a&file_name=b"])
def test_no_file_name_or_two(query: bytes) -> None:
    with pytest.raises(MalformedRequest):
        file_name(query)
