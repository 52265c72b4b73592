"""What a text of ours may be where another program writes it into a file, a line or a command.

The daemons check little of this themselves (DAEMONS.md, "Replies", authd; "The ar queue"; "The analysisd queue"): a
blank in an agent's name ends remoted at its next reading of the key file, a line feed writes a second line into it.
Every refusal is :class:`MessageInvalid` (1012), before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from wazuh_comms_trio.errors import MessageInvalid

T = TypeVar("T")

#: The largest number that the daemons' 32-bit ids hold.
MAX_AGENT_NUMBER: Final[int] = 2**31 - 1

_AGENT_ID: Final = re.compile(r"(?:[0-9]{3}|[1-9][0-9]{3,9})\Z")
_AGENT_NAME: Final = re.compile(r"[A-Za-z0-9_.%\-]{2,128}\Z")
_AGENT_KEY: Final = re.compile(r"[A-Za-z0-9]{64}\Z")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9.]+)?\Z")
_GROUP: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.\-]{1,255}\Z")
_WORD: Final = re.compile(r"[A-Za-z0-9_.:\-]+\Z")
_DURATION: Final = re.compile(r"[0-9]{1,9}[smhd]?\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9](?:[.+~\-]?[A-Za-z0-9]){0,63}\Z")
_REPOSITORY: Final = re.compile(r"(?:https?://)?(?!\w+://)[A-Za-z0-9\[][A-Za-z0-9.:/_\-~%@\[\]]*\Z")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~\-]{0,254}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def check_text(value: object, what: str) -> str:
    """Text that can be written in UTF-8, empty or not."""
    if not isinstance(value, str):
        raise MessageInvalid(1012, f"{what} is text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise MessageInvalid(1012, f"{what} can't be written in UTF-8: {exc}") from exc
    return value


def check_line(value: object, what: str) -> str:
    """Text without control characters, so that it is part of a line wherever it is written."""
    text = check_text(value, what)
    if found := _CONTROL.search(text):
        raise MessageInvalid(1012, f"{what} has {found.group()!r} at {found.start()}; it must be a part of one line")
    return text


def _matching(value: object, pattern: re.Pattern[str], problem: str) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        raise MessageInvalid(1012, f"{value!r:.60} {problem}")
    return value


def check_list(values: Iterable[T], what: str) -> list[T]:
    """Several values. One text would be taken apart into its letters, so it is refused."""
    if isinstance(values, str | bytes | bytearray):
        raise MessageInvalid(1012, f"{what} are a sequence of texts, not one text: {values!r:.60}")
    if not isinstance(values, Iterable):
        raise MessageInvalid(1012, f"{what} are a sequence of texts, not {values!r:.60}")
    return list(values)


def check_flag(value: object, what: str) -> bool:
    """True or false, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise MessageInvalid(1012, f"{what} is true or false, not {value!r:.60}")
    return value


def check_agent_id(agent_id: object) -> str:
    """An agent's id as the server stores it: ASCII digits, at least three. Nothing is padded: ``1`` and ``0001`` are
    nobody."""
    # Looked at for every datagram, so first as cheaply as can be.
    if (
        type(agent_id) is str
        and agent_id.isdigit()
        and agent_id.isascii()
        and ((size := len(agent_id)) == 3 or (3 < size < 10 and agent_id[0] != "0"))
    ):
        return agent_id
    if not isinstance(agent_id, str):
        raise MessageInvalid(1012, f"an agent's id is text, not {type(agent_id).__name__}")
    if not _AGENT_ID.match(agent_id) or (len(agent_id) > 9 and int(agent_id) > MAX_AGENT_NUMBER):
        raise MessageInvalid(
            1012,
            f"{agent_id!r:.60} is no agent's id: a number, filled up with zeros to three digits",
        )
    return agent_id


def check_agent_name(name: object) -> str:
    """An agent's name: 2 to 128 letters, digits, ``_``, ``.``, ``%`` and ``-``."""
    return _matching(name, _AGENT_NAME, "is no agent's name: 2 to 128 letters, digits, '_', '.', '%' and '-'")


def check_agent_key(key: object) -> str:
    """An agent's key: 64 letters and digits. The error doesn't show it, since it is a secret."""
    if not isinstance(key, str) or not _AGENT_KEY.match(key):
        raise MessageInvalid(1012, "this is no agent's key: 64 letters and digits")
    return key


def check_agent_address(address: object) -> str:
    """Where an agent may come from: ``any``, an IPv4 or IPv6 address, or a network (``10.0.0.0/8``)."""
    if address == "any" and isinstance(address, str):
        return address
    from ipaddress import ip_network

    if isinstance(address, str) and _ADDRESS.match(address):
        try:
            ip_network(address, strict=False)
        except ValueError:
            pass
        else:
            return address
    raise MessageInvalid(1012, f"{address!r:.60} is no address: 'any', an IPv4 or IPv6 address, or a network")


def check_group(group: object) -> str:
    """A group's name: up to 255 letters, digits, ``_``, ``.`` and ``-``."""
    return _matching(group, _GROUP, "is no group's name: letters, digits, '_', '.' and '-', at most 255")


def check_word(word: object) -> str:
    """One word of a text request, which would otherwise be read as several or as none."""
    return _matching(word, _WORD, "is not one word of letters, digits, '_', '.', ':' and '-'")


def check_duration(value: object, what: str) -> str:
    """A length of time as authd takes it: ``"30"`` or ``"30s"``, ``"15m"``, ``"1h"``, ``"2d"``."""
    if not isinstance(value, str) or not _DURATION.match(value):
        raise MessageInvalid(1012, f"{what} is a length of time such as '1h' or '30m', not {value!r:.60}")
    return value


def check_version(version: object) -> str:
    """A version as a part of a file's name: ``v4.14.2``, ``5.0.0-beta3``; no folder, no dots in a row."""
    return _matching(version, _VERSION, "is no version: letters and digits, '.', '-', '+', '~' between them")


def check_repository(repository: object) -> str:
    """Where packages are, by HTTP: ``packages.wazuh.com/4.x/wpk/``, with or without its scheme. No way up (``..``), no
    query."""
    if not isinstance(repository, str) or not _REPOSITORY.match(repository) or _leads_up(_decoded(repository)):
        raise MessageInvalid(1012, f"{repository!r:.60} is no repository: an address and folders, without '..'")
    return repository


def check_absolute_path(path: object) -> str:
    """A file's absolute path on the server: one line, no way up (``..``)."""
    text = check_line(path, "a file's path")
    if not text.startswith("/") or text.endswith("/") or _leads_up(text):
        raise MessageInvalid(1012, f"{text!r:.60} is no absolute path of a file, without '..'")
    return text


def check_file_name(name: object, what: str) -> str:
    """The name of a file without its folder, as one word."""
    return _matching(name, _FILE_NAME, f"is no {what}: one word without a folder")


def _decoded(address: str) -> str:
    """What matters of percent-encoding here: dots and slashes, however often they are encoded."""
    address = re.sub(r"%(?:25)+", "%", address)
    return re.sub(r"%2e", ".", re.sub(r"%2f|%5c", "/", address, flags=re.IGNORECASE), flags=re.IGNORECASE)


def _leads_up(path: str) -> bool:
    return ".." in re.split(r"[/\\]", path)
