"""Documents that another program, or a damaged disk, left such that they can't be read: each costs at most itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from wazuh_comms_trio.errors import DocumentUnreadable
from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: What decoders raise for a text that isn't sound JSON of the expected shape.
DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Where in an answer, of which the document is a part.
_PLACE: Final = re.compile(r" \(byte \d+\)| - at `[^`]*`")
#: Documents of which is remembered that the log names them.
_REMEMBERED: Final = 10_000


def describe_decode_error(error: Exception) -> str:
    """Why a text can't be read, for the log and the operator; one of ``DECODE_ERRORS``, or what a look at its values
    raised."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not valid UTF-8"
    return _PLACE.sub("", str(error)) or type(error).__name__


def escaped(text: str) -> str:
    """One line of ASCII, whatever is in it: ids come from other programs."""
    return text.encode("unicode_escape", "backslashreplace").decode("ascii")


class UnreadableLog:
    """Names each such document in the log once, and again when the reason is another one. ``silent``: for a caller that
    tells of them itself."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._told: BoundedCache[str, str] = BoundedCache(_REMEMBERED)

    def note(self, error: DocumentUnreadable) -> None:
        if not self._silent and self._told.get(error.name) != error.why:
            self._told.put(error.name, error.why)
            logger.warning("%s; it is passed over", error.detail)

    def without(self, found: Iterable[T | DocumentUnreadable]) -> list[T]:
        """The readable ones of these; the others are named in the log."""
        readable: list[T] = []
        for each in found:
            if isinstance(each, DocumentUnreadable):
                self.note(each)
            else:
                readable.append(each)
        return readable

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Names in the log the document whose error goes through."""
        try:
            yield
        except DocumentUnreadable as error:
            self.note(error)
            raise
