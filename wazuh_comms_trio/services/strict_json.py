"""A request's JSON body as a typed value; what is wrong with it as a sentence for the client. How deep it may be."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from wazuh_comms_trio.errors import MalformedRequest

__all__ = ["DEEPEST", "decode_body", "is_too_deep"]

T = TypeVar("T")

#: Levels of objects and lists in what others made up and is kept. A reader takes some 950, less the frames of its own
#: stack: what one task could just read, another that has to write it couldn't.
DEEPEST: Final = 200

#: ``Expected `str`, got `int` - at `$.packages[0].size` ``: where it is, without the root's sign.
_PLACE: Final = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`")


def is_too_deep(value: object) -> bool:
    """Whether a value of JSON has more than ``DEEPEST`` levels."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return False
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return True


def decode_body(body: bytes | bytearray, decoder: msgspec.json.Decoder[T]) -> T:
    """Decodes a body. Raises ``MalformedRequest``, with the place of the first error and what was expected there."""
    try:
        if not body.isascii():
            body.decode()  # the decoder doesn't look at the encoding of what it skips
        return decoder.decode(body)
    except RecursionError:
        raise MalformedRequest("The request body is nested too deeply") from None
    except UnicodeDecodeError:
        raise MalformedRequest("The request body is not UTF-8") from None
    except msgspec.ValidationError as exc:
        text = str(exc)
        place = _PLACE.search(text)
        if place is None:
            raise MalformedRequest(text) from None
        where = place[1] or "the request body"
        raise MalformedRequest(f"{where}: {_PLACE.sub('', text)}") from None
    except msgspec.MsgspecError as exc:
        raise MalformedRequest(f"The request body is not JSON: {exc}") from None
