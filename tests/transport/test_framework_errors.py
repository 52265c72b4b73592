"""Programs that keep the framework's exception classes, and what those do that ours do as well (SOCKETS.md, 2.4)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest
import trio

from wazuh_comms_trio import errors
from wazuh_comms_trio.errors import (
    EventTooLarge,
    MessageInvalid,
    SendSyncError,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.testing import AuthdModel, open_fake_daemon
from wazuh_comms_trio.transport import (
    FRAMEWORK_NUMBERS,
    TransportClosed,
    WazuhSocket,
    add_agent,
    open_pool,
    use_framework_errors,
)

EVERY = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, WazuhException)
    and not kind.__name__.startswith("_")
    # One that takes other arguments says them in attributes of its own, which no dictionary of the framework's has.
    and ("__init__" not in vars(kind) or kind in (WazuhException, errors.DaemonRefusal, errors.CommsError))
]


def framework() -> ModuleType:
    """Another program's classes: read-only properties, a table of numbers that is asked for each."""
    module = ModuleType("exception")

    class Theirs(Exception):
        TABLE: ClassVar = {1705: "an agent with that name exists"}

        def __init__(self, code: int, extra_message: Any = None) -> None:
            self._code = code
            self._message = self.TABLE[code]

        @property
        def code(self) -> int:
            return self._code

        @property
        def message(self) -> str:
            return self._message

        @property
        def ids(self) -> set[str]:
            return {"theirs"}

        def __str__(self) -> str:
            return "theirs"

    module.WazuhException = type("WazuhException", (Theirs,), {})  # type: ignore[attr-defined]
    for name in ("WazuhError", "WazuhInternalError"):
        setattr(module, name, type(name, (module.WazuhException,), {}))
    return module


@pytest.fixture
def theirs() -> Iterator[Any]:
    yield framework()
    use_framework_errors(None)
    assert WazuhError("1014").__class__.__mro__.count(Exception) == 1  # type: ignore[arg-type]


def raised(error: Exception, kind: Any) -> bool:
    try:
        raise error
    except kind:
        return True
    except Exception:
        return False


async def test_their_except_catches_ours(theirs: Any) -> None:
    assert not raised(WazuhError(1014), theirs.WazuhException)
    use_framework_errors(theirs)
    for kind, families in (
        (WazuhException, (theirs.WazuhException,)),
        (WazuhError, (theirs.WazuhException, theirs.WazuhError)),
        (WazuhInternalError, (theirs.WazuhException, theirs.WazuhInternalError)),
        (MessageInvalid, (theirs.WazuhException, theirs.WazuhInternalError, WazuhInternalError)),
        (SocketTimeout, (theirs.WazuhError, TimeoutError, WazuhError)),
        (EventTooLarge, (theirs.WazuhError, theirs.WazuhInternalError)),
        (SendSyncError, (theirs.WazuhError, theirs.WazuhInternalError)),
        (TransportClosed, (theirs.WazuhError, trio.ClosedResourceError)),
    ):
        for family in families:
            assert raised(kind(1014, "why"), family), (kind, family)
    assert not raised(WazuhError(1014), theirs.WazuhInternalError)
    error = WazuhError(1014, "why", ids=["001"])
    assert (error.code, error.message, error.ids) == (1014, "Error communicating with socket: why", {"001"})
    assert str(error) == "Error 1014 - Error communicating with socket: why"
    with pytest.raises(theirs.WazuhInternalError, match="Error 1013"):
        WazuhSocket("/nowhere")
    async with open_pool("authd") as pool:
        with pytest.raises(theirs.WazuhInternalError, match="Error 1012"):
            await add_agent(pool, "two words")
    use_framework_errors(None)
    assert not raised(WazuhError(1014), theirs.WazuhException)


async def test_a_daemons_number_becomes_theirs(theirs: Any) -> None:
    async with (
        open_fake_daemon("authd", AuthdModel()) as daemon,
        open_pool("authd", connect=daemon.connect) as authd,
    ):
        await add_agent(authd, "web-1")
        with pytest.raises(WazuhException, match="Error 9008 - Duplicate name"):
            await add_agent(authd, "web-1")
        use_framework_errors(theirs, numbers=FRAMEWORK_NUMBERS)
        with pytest.raises(theirs.WazuhError, match="Error 1705 - Duplicate name") as caught:
            await add_agent(authd, "web-1")
        assert caught.value.cmd_error
        use_framework_errors([theirs.WazuhError])
        with pytest.raises(WazuhException, match="Error 9008"):
            await add_agent(authd, "web-1")
        assert raised(WazuhError(1014), theirs.WazuhException), "theirs is one, too"
        assert not raised(WazuhInternalError(1014), theirs.WazuhException)


def test_what_cannot_be_used_changes_nothing(theirs: Any) -> None:
    use_framework_errors(theirs)

    class WazuhException(OSError):
        """Of another layout than ours."""

    for wrong in ([5], [], [WazuhException], [errors.WazuhException], ModuleType("empty")):
        with pytest.raises((TypeError, ValueError)):
            use_framework_errors(wrong)  # type: ignore[arg-type]
        assert raised(WazuhError(1014), theirs.WazuhError)


# --- what the framework's classes do ---


def test_defaults_and_the_place_of_ids() -> None:
    assert [(kind(1014).type, kind(1014).title) for kind in (WazuhException, WazuhError, WazuhInternalError)] == [
        ("about:blank", "WazuhException"),
        ("about:blank", "Bad Request"),
        ("about:blank", "Wazuh Internal Error"),
    ]
    base = WazuhException(1014, "a", "b", False, {}, "title", "type")
    assert (base.title, base.type) == ("title", "type")
    for kind in (WazuhError, WazuhInternalError):
        error = kind(1014, "a", "b", False, {}, ["001", "002"], "title", "type")
        assert (error.ids, error.title, error.type) == ({"001", "002"}, "title", "type")
        assert kind(1014).ids == set()


def test_a_daemons_error_advises_nothing() -> None:
    assert WazuhError(1014, "why").remediation == "Restart Wazuh to restore the sockets"
    assert WazuhError(1014, "why", cmd_error=True).remediation is None
    assert WazuhError(9008, "why").remediation is None
    assert WazuhError(9008, "why").message == "why"


def test_equal_and_joined() -> None:
    one = WazuhError(1014, "a", dapi_errors={"node1": {"error": "x"}}, ids=["001"])
    assert one == WazuhError(1014, "a", dapi_errors={"node1": {"error": "x"}}, ids=["001"])
    assert hash(one) == hash(copy.deepcopy(one))
    for other in (WazuhError(1014, "b"), WazuhInternalError(1014, "a"), WazuhError(1013, "a"), "Error 1014"):
        assert one != other
    both = one | WazuhInternalError(1013, dapi_errors={"node2": {"error": "y"}}, ids=["002"])
    assert (both.__class__, both.code, both.ids) == (WazuhError, 1014, {"001", "002"})
    assert both.dapi_errors == {"node1": {"error": "x"}, "node2": {"error": "y"}}
    assert (one.ids, list(one.dapi_errors)) == ({"001"}, ["node1"])
    with pytest.raises(TypeError):
        _ = one | 5


@pytest.mark.parametrize("kind", EVERY)
def test_to_dict_and_back(kind: type[WazuhException]) -> None:
    error = kind("a word") if kind is errors.DaemonRefusal else kind(1014)  # type: ignore[arg-type]
    for again in (kind.from_dict(error.to_dict()), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert again == error
        assert (again.__class__, str(again), again.remediation) == (kind, str(error), error.remediation)
    given = WazuhError(1014, "why", "how", dapi_errors={"n": 1}, ids=["001"]).to_dict()
    assert WazuhError(**given).to_dict() == given
