"""The operating system's errors as numbers, and the checks on paths."""

from __future__ import annotations

import errno
import os
import pickle
import pwd
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transport.peers import listening, queue_socket
from wazuh_comms_trio import errors
from wazuh_comms_trio.errors import (
    BacklogFull,
    QueueTimeout,
    SocketTimeout,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport import WazuhAsyncAnalysisdQueue, WazuhAsyncProtocol, WazuhAsyncQueue, open_pool
from wazuh_comms_trio.transport import errors as trio_errors
from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
from wazuh_comms_trio.transport.blocking.datagram import WazuhAnalysisdQueue, WazuhQueue
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket, WazuhSocketJSON
from wazuh_comms_trio.transport.paths import QUEUE_REFUSAL, STREAM_REFUSAL, check_path
from wazuh_comms_trio.transport.translate import (
    connect_error,
    queue_connect_error,
    queue_error,
    reason_of,
    stream_error,
    timed_out,
)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (connect_error(os_error(errno.ECONNREFUSED), "p"), 1121, WazuhInternalError),
        (connect_error(os_error(errno.EPROTOTYPE), "p"), 1013, WazuhInternalError),
        (connect_error(os_error(errno.EAGAIN), "p"), 1013, BacklogFull),
        (connect_error(os_error(errno.EACCES), "p"), 1013, WazuhInternalError),
        (connect_error(os_error(errno.ENOENT), "p"), 1013, WazuhInternalError),
        (connect_error(os_error(errno.EMFILE), "p"), 1013, WazuhInternalError),
        (connect_error(timed_out(), "p"), 1014, SocketTimeout),
        (queue_connect_error(os_error(errno.ECONNREFUSED), "p"), 1010, WazuhInternalError),
        (queue_connect_error(os_error(errno.EPROTOTYPE), "p"), 1010, WazuhInternalError),
        (queue_connect_error(os_error(errno.EACCES), "p"), 1010, WazuhInternalError),
        (stream_error(os_error(errno.ECONNRESET), "p"), 1014, WazuhError),
        (stream_error(os_error(errno.EAGAIN), "p"), 1014, SocketTimeout),
        (stream_error(timed_out(), "p"), 1014, SocketTimeout),
        (queue_error(os_error(errno.ECONNREFUSED), "p"), 1011, WazuhInternalError),
        (queue_error(os_error(errno.EMSGSIZE), "p"), 1011, WazuhInternalError),
        (queue_error(os_error(errno.EAGAIN), "p"), 1011, QueueTimeout),
        (queue_error(timed_out(), "p"), 1011, QueueTimeout),
    ],
)
def test_numbers(error: WazuhException, code: int, kind: type[WazuhException]) -> None:
    assert type(error) is kind
    assert error.code == code
    text = errors.TEXTS[code]
    assert error.message.startswith((text if isinstance(text, str) else text[0]) + ": p")


def test_reasons() -> None:
    assert reason_of(os_error(errno.EACCES)) == "Permission denied"
    assert reason_of(OSError("own words")) == "own words"
    assert reason_of(OSError()) == "OSError"


#: what the published description calls for, what the framework's programs catch, and what the error means besides
BOTH_CLASSES: list[tuple[type[WazuhException], int, set[type[BaseException]]]] = [
    (errors.EventTooLarge, 1012, {WazuhInternalError, WazuhError}),
    (errors.SendSyncError, 1014, {WazuhInternalError, WazuhError}),
    (errors.SocketTimeout, 1014, {WazuhError, TimeoutError}),
    (errors.QueueTimeout, 1011, {WazuhInternalError, TimeoutError}),
    (trio_errors.TransportClosed, 1014, {WazuhError, trio.ClosedResourceError}),
    (trio_errors.TransportBroken, 1014, {WazuhError, trio.BrokenResourceError}),
    (trio_errors.TransportPeerClosed, 1014, {errors.PeerClosed, trio.BrokenResourceError}),
    (trio_errors.TransportTruncatedFrame, 1014, {errors.TruncatedFrame, errors.FrameError, trio.BrokenResourceError}),
    (trio_errors.TransportEmptyFrame, 1014, {errors.EmptyFrame, errors.FrameError, trio.BrokenResourceError}),
    (trio_errors.TransportFrameTooLarge, 1014, {errors.FrameTooLarge, errors.FrameError, trio.BrokenResourceError}),
    (trio_errors.QueueClosed, 1011, {WazuhInternalError, trio.ClosedResourceError}),
    (trio_errors.QueueBroken, 1011, {WazuhInternalError, trio.BrokenResourceError}),
]


@pytest.mark.parametrize(("kind", "code", "others"), BOTH_CLASSES)
def test_either_except_catches_it(kind: type[WazuhException], code: int, others: set[type[BaseException]]) -> None:
    assert all(issubclass(kind, other) for other in {*others, WazuhException})
    error = kind(code, "why")
    assert str(error).startswith(f"Error {code} - ")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert (type(copy), str(copy), copy.code) == (kind, str(error), code)


# --- paths ---

Use = Callable[..., Any]


def use_check(path: Any, **options: Any) -> None:
    check_path(path, STREAM_REFUSAL, **options)


def use_check_for_queues(path: Any, **options: Any) -> None:
    check_path(path, QUEUE_REFUSAL, **options)


def use_blocking(path: Any, **options: Any) -> None:
    WazuhSocket(path, **options).close()


def use_on_trio(path: Any, **options: Any) -> None:
    async def main() -> None:
        async with await WazuhAsyncSocket.from_path(path, **options):
            pass

    trio.run(main)


def use_queue(path: Any, **options: Any) -> None:
    WazuhQueue(path, **options).close()


@pytest.fixture(params=[use_check, use_check_for_queues, use_blocking, use_on_trio, use_queue])
def use(request: pytest.FixtureRequest) -> Use:
    made: Use = request.param
    return made


@pytest.fixture
def code(use: Use) -> int:
    return 1010 if use in (use_queue, use_check_for_queues) else 1013


def refusal(use: Use, code: int, path: Any, **options: Any) -> str:
    with pytest.raises(WazuhInternalError) as caught:
        use(path, **options)
    assert caught.value.code == code
    return caught.value.message


def test_paths_that_are_refused(home: Path, use: Use, code: int) -> None:
    (home / "file").touch()
    (home / "dangling").symlink_to(home / "nothing")
    assert "No such file" in refusal(use, code, str(home / "none"))
    assert "No such file" in refusal(use, code, str(home / "dangling"))
    assert "Not a directory" in refusal(use, code, str(home / "file/below"))
    assert "is not a socket" in refusal(use, code, str(home / "file"))
    assert "is not a socket" in refusal(use, code, str(home))
    assert "is not a socket" in refusal(use, code, "/dev/null")
    assert "too long" in refusal(use, code, "/" + "x" * 107)
    assert "too long" in refusal(use, code, "/" + "é" * 54)
    assert "no path" in refusal(use, code, "")
    assert "no path" in refusal(use, code, "\0abstract")
    assert "no path" in refusal(use, code, str(home / "s\0"))
    for path in (b"/bytes", None, 5):
        assert "a path is text" in refusal(use, code, path)


def test_the_longest_path(home: Path) -> None:
    name = "x" * (107 - len(str(home)) - 1)
    with listening(home / name) as server:
        assert len(server.path) == 107
        assert check_path(Path(server.path), STREAM_REFUSAL) == server.path
        use_blocking(server.path)
        use_on_trio(server.path)


def test_a_socket_of_the_other_kind(home: Path) -> None:
    with queue_socket(home / "q"):
        for use in (use_blocking, use_on_trio):
            assert "is a datagram socket" in refusal(use, 1013, str(home / "q"))
    with listening(home / "s"):
        assert "not a datagram socket" in refusal(use_queue, 1010, str(home / "s"))


@pytest.fixture
def place(use: Use, home: Path) -> Any:
    """A socket in a folder below the home, of the kind that ``use`` takes."""
    path = home / "folder" / "s"
    with queue_socket(path) if use is use_queue else listening(path):
        yield path


def test_an_owner_that_is_asked_for(use: Use, code: int, place: Path) -> None:
    me = os.getuid()
    use(str(place), require_owner=me)
    use(str(place), require_owner=pwd.getpwuid(me).pw_name)
    assert "there is no user" in refusal(use, code, str(place), require_owner="nobody has this name")
    if me == 0:
        use(str(place), require_owner=12345)  # root's is always taken
        os.chown(place, 12345, 12345)
        use(str(place), require_owner=12345)
        assert "belongs to user 12345, neither to 54321 nor to root" in refusal(
            use, code, str(place), require_owner=54321
        )
    else:
        assert "belongs to user" in refusal(use, code, str(place), require_owner=me + 1)


def test_a_folder_that_others_may_write(use: Use, code: int, place: Path) -> None:
    me = os.getuid()
    folder = place.parent
    folder.chmod(0o770)
    use(str(place), require_owner=me)
    for mode in (0o777, 0o1777, 0o702):
        folder.chmod(mode)
        assert f"lies in {folder}, which is writable by others" in refusal(use, code, str(place), require_owner=me)
        use(str(place))
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    assert f"lies in {folder.parent}, which is" in refusal(use, code, str(place), require_owner=me)
    folder.parent.chmod(0o1777)
    use(str(place), require_owner=me)
    # The folder counts where the socket really lies, and that of a link to it.
    link = folder / "link"
    folder.chmod(0o777)
    link.symlink_to(place)
    assert "writable by others" in refusal(use, code, str(link), require_owner=me)
    folder.chmod(0o700)
    use(str(link), require_owner=me)
    open_folder = folder / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (open_folder / "link").symlink_to(place)
    assert f"lies in {open_folder}," in refusal(use, code, str(open_folder / "link"), require_owner=me)


@pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED")
def test_peer_credentials(home: Path) -> None:
    with listening(home / "s") as server, WazuhSocket(server.path) as sock:
        credentials = sock.peer_credentials()
        assert (credentials.pid, credentials.uid, credentials.gid) == (os.getpid(), os.getuid(), os.getgid())
        assert server.accept().family == socket.AF_UNIX


# --- daemons that may be at two places ---


@pytest.mark.parametrize("use", [use_blocking, use_on_trio])
def test_an_error_names_every_place_that_was_tried(home: Path, use: Use) -> None:
    first, second = home / "queue/sockets/wdb", home / "queue/db/wdb"
    for asked, other in ((first, second), (second, first)):
        message = refusal(use, 1013, asked)
        assert f"{asked}: No such file" in message
        assert f"also tried {other}: No such file" in message
    with listening(second) as server:
        server.sock.close()  # its file stays: nobody listens
        with pytest.raises(WazuhInternalError, match=r"Error 1121 .*nobody listens") as caught:
            use(first)
        assert f"also tried {first}: No such file" in caught.value.message
    second.unlink()
    second.write_text("no socket")
    assert f"also tried {second} is not a socket" not in refusal(use, 1013, second)
    assert f"{second} is not a socket; also tried {first}: No such file" in refusal(use, 1013, first)


async def test_a_pools_error_names_every_place_that_was_tried(home: Path) -> None:
    async with open_pool("wazuh-db", home=home) as pool:
        with pytest.raises(
            WazuhInternalError, match=r"Error 1013 .*queue/sockets/wdb: .*also tried .*queue/db/wdb: "
        ) as caught:
            await pool.request("global get-all-agents last_id 0")
    places = home / "queue/sockets/wdb", home / "queue/db/wdb"
    assert [caught.value.message.count(f"{place}: ") for place in places] == [1, 1]  # tried once each


async def test_paths_are_taken_everywhere(home: Path) -> None:
    path = home / "s"
    with listening(path):
        WazuhSocket(path).close()
        WazuhSocketJSON(path).close()
        for kind in (WazuhAsyncSocket, WazuhAsyncSocketJSON, WazuhAsyncProtocol):
            async with await kind.from_path(path) as connection:
                assert connection.path == str(path)
    with queue_socket(home / "q"):
        for queue in (WazuhQueue(home / "q"), WazuhAnalysisdQueue(home / "q")):
            assert queue.path == str(home / "q")
            queue.close()
        for kind_of_queue in (WazuhAsyncQueue, WazuhAsyncAnalysisdQueue):
            async with await kind_of_queue.from_path(home / "q") as opened:
                assert opened.path == str(home / "q")
