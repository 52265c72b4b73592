"""The server's small sockets: control, keystore, and the configuration that each daemon runs with."""

from __future__ import annotations

from typing import Any, Final

from wazuh_comms_trio.errors import (
    AnswerInvalid,
    DaemonRefusal,
    MessageInvalid,
    NotInRelease,
    WazuhError,
)
from wazuh_comms_trio.transport.registry import get_daemon
from wazuh_comms_trio.transport.releases.release import Release, only_in
from wazuh_comms_trio.transport.server.call import DaemonCall, check_words, data_of, text_of
from wazuh_comms_trio.wire.envelope import (
    create_wazuh_socket_message,
    decode_json,
    decode_text,
    encode_json,
    reply_data,
)
from wazuh_comms_trio.wire.wdb import parse_reply

# --- control ---


def control(order: str) -> DaemonCall[None]:
    """``restart`` or ``reload`` of the whole server through its control socket, which closes without an answer unless
    the caller is root or the server's own user. ``WazuhError`` 1014 for anything but ``ok``. 5.0.0-beta1 and later:
    before, whatever is said there is answered with the host's address."""
    if order not in ("restart", "reload"):
        raise MessageInvalid(1012, f"the control socket knows restart and reload, not {order!r:.60}")

    def prepare(release: Release) -> bytes:
        only_in(release, "E", "G", f"a {order} by the control socket")
        return order.encode()

    def decode(answer: bytes) -> None:
        text_of(answer)

    return DaemonCall(f"control {order}", "control", prepare, decode)


def host_address() -> DaemonCall[str]:
    """This host's own address as modulesd sees it. Until 5.0.0-alpha0: later the same socket restarts the server."""

    def prepare(release: Release) -> bytes:
        only_in(release, "A", "alpha", "the host's address at the control socket")
        return b"host_ip"

    def decode(answer: bytes) -> str:
        text = decode_text(answer).strip()
        if not text or text == "Err":
            raise WazuhError(1014, "the address couldn't be found out", cmd_error=True)
        return text

    return DaemonCall("host_address", "control", prepare, decode, repeatable=True)


# --- keystore ---

#: What stands for a value that is missing or empty.
ABSENT_VALUE: Final = "wazuh-manager"


def keystore_get(family: str, key: str) -> DaemonCall[str]:
    """A value of the keystore. One that is missing or empty reads as ``wazuh-manager``: the daemon doesn't tell them
    apart. :class:`DaemonRefusal` with the daemon's reason. 5.0.0-beta1 and later."""

    def decode(answer: bytes) -> str:
        value = _stored(answer).get("value", ABSENT_VALUE)
        if not isinstance(value, str):
            raise AnswerInvalid(1014, f"a value is text, not {value!r:.60}")
        return value

    return _keystore("GET", decode, family, key, repeatable=True)


def keystore_put(family: str, key: str, value: str) -> DaemonCall[None]:
    """Store a value, which may hold anything but a NUL. Otherwise as ``keystore_get``; whether there was one before
    isn't told."""
    if not isinstance(value, str) or "\0" in value:
        raise MessageInvalid(1012, "a value is text without NULs")
    return _keystore("PUT", _done, family, key, value, repeatable=True)


def keystore_delete(family: str, key: str) -> DaemonCall[None]:
    """Remove a value. Otherwise as ``keystore_put``."""
    return _keystore("DELETE", _done, family, key, repeatable=True)


def _keystore(verb: str, decode: Any, family: str, key: str, *value: str, repeatable: bool) -> DaemonCall[Any]:
    for name, word in (("family", family), ("key", key)):
        if "|" in check_words(word, f"a keystore's {name}"):
            raise MessageInvalid(1012, f"a keystore's {name} has no bars: {word!r:.60}")
    try:
        request = "|".join((verb, family, key, *value)).encode()
    except UnicodeEncodeError as exc:
        raise MessageInvalid(1012, f"the request can't be written in UTF-8: {exc}") from exc

    def prepare(release: Release) -> bytes:
        only_in(release, "E", "G", "the keystore's socket")
        return request

    return DaemonCall(f"keystore {verb}", "keystore", prepare, decode, repeatable=repeatable)


def _stored(answer: bytes) -> dict[str, Any]:
    found = decode_json(answer)
    match found:
        case {"status": "ok"}:
            return dict(found)
        case {"status": "error"}:
            raise DaemonRefusal("error", str(found.get("message", "")) or None)
        case _:
            raise AnswerInvalid(1014, f"the keystore says neither ok nor error: {found!r:.60}")


def _done(answer: bytes) -> None:
    _stored(answer)


# --- configuration, and what else the daemons take ---


def component_configuration(daemon: str, section: str) -> DaemonCall[Any]:
    """One section of the configuration that a daemon runs with, asked as text or JSON, whichever it understands:
    ``("monitor", "global")``, ``("wmodules", "internal_options")``, ``("remoted", "remote")``, ``("authd", "auth")``.

    :class:`NotInRelease` (1013) for a daemon that this release doesn't have; ``WazuhError`` 1014, or the daemon's own
    number, for a section that it doesn't know.
    """
    words = check_words(section, "a section")
    if " " in words:
        raise MessageInvalid(1012, f"a section is one word, not {section!r:.60}")

    def as_text(release: Release) -> bool:
        return daemon == "authd" or get_daemon(daemon, release).content == "text"

    def prepare(release: Release) -> bytes:
        if get_daemon(daemon, release).kind != "stream":
            raise NotInRelease(1012, f"{daemon} tells no configuration in {release}")
        if as_text(release):
            return f"getconfig {words}".encode()
        return encode_json(create_wazuh_socket_message({"module": "framework"}, "getconfig", {"section": words}))

    return DaemonCall("component_configuration", daemon, prepare, _either, repeatable=True)


def _either(answer: bytes) -> Any:
    return parse_reply(answer).data()


def module_query(query: str) -> DaemonCall[Any]:
    """``query <module> …`` of modulesd (``wmodules``), given without the word ``query``; the answer decoded where it is
    JSON, else as text."""
    text = check_words(query, "a module's query")
    return DaemonCall("module_query", "wmodules", lambda release: f"query {text}".encode(), _either)


def all_module_configurations() -> DaemonCall[Any]:
    """The configurations of all of modulesd's modules at once. 5.0.0 and later."""

    def prepare(release: Release) -> bytes:
        only_in(release, "G", "G", "getallconfig")
        return b"getallconfig"

    return DaemonCall("all_module_configurations", "wmodules", prepare, _either, repeatable=True)


def reload_ruleset() -> DaemonCall[Any]:
    """Have analysisd read its rules anew; returns its warnings. 4.13 to 4.14."""

    def prepare(release: Release) -> bytes:
        only_in(release, "C", "D", "reload-ruleset")
        return encode_json(create_wazuh_socket_message({"module": "framework"}, "reload-ruleset", {}))

    return DaemonCall("reload_ruleset", "analysis", prepare, data_of, repeatable=True)


def check_configuration() -> DaemonCall[list[str]]:
    """Have execd check the server's configuration; returns the lines of its log. ``WazuhException`` with number 1 when
    it isn't right. Until 4.14."""

    def prepare(release: Release) -> bytes:
        only_in(release, "A", "alpha", "execd's check-manager-configuration")
        return b"check-manager-configuration"

    def decode(answer: bytes) -> list[str]:
        found = decode_json(answer)
        reply_data(found)
        return str(found.get("message", "")).splitlines()

    return DaemonCall("check_configuration", "com", prepare, decode, repeatable=True)
