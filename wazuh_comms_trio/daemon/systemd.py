"""systemd's side: what the service manager passed, and what it wants to hear. Nothing happens without it.

Facts: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick

__all__ = ["Notifier", "enabled_socket_unit", "keep_notified", "passed_descriptors", "watchdog_interval"]

FIRST_DESCRIPTOR: Final = 3
_CGROUPS: Final = Path("/proc/self/cgroup")
_UNIT_FOLDERS: Final = (Path("/etc/systemd/system"), Path("/run/systemd/system"), Path("/usr/lib/systemd/system"))
#: Seconds between two status lines.
STATUS_INTERVAL: Final = 5.0


class Notifier:
    """Tells the service manager. ``STATUS=`` lines are what ``systemctl status`` shows."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")

    def __bool__(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "stopping") -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that doesn't listen must not keep anybody from working.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which the manager wants to hear ``alive``; None when it doesn't."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 else None


def passed_descriptors(environment: Mapping[str, str] = os.environ) -> list[tuple[str, int]]:
    """The listening descriptors that the manager opened for this process, each with its name (``FileDescriptorName=``,
    ``unknown`` or the unit's name when it has none)."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(environment.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))
    return [(names[number] or "unknown", FIRST_DESCRIPTOR + number) for number in range(count)]


def enabled_socket_unit(
    environment: Mapping[str, str] = os.environ, *, cgroups: Path = _CGROUPS, folders: Sequence[Path] = _UNIT_FOLDERS
) -> str | None:
    """The socket unit of the service that this process is, if it is enabled; None outside of a service. Blocks."""
    if "INVOCATION_ID" not in environment:
        return None
    try:
        places = [line.rsplit("/", 1)[-1] for line in cgroups.read_text().splitlines()]
    except OSError:
        return None
    service = next((place for place in places if place.endswith(".service")), None)
    if service is None:
        return None
    unit = service.removesuffix(".service") + ".socket"
    return unit if any((folder / "sockets.target.wants" / unit).is_symlink() for folder in folders) else None


async def keep_notified(notifier: Notifier, status_line: Callable[[], str]) -> None:
    """Feeds the watchdog and keeps the status line current, until cancelled. It runs on this process's event loop: one
    that hangs is the service manager's to deal with."""
    watchdog = watchdog_interval()
    interval = STATUS_INTERVAL if watchdog is None else min(STATUS_INTERVAL, watchdog / 3)
    while notifier:
        if watchdog is not None:
            notifier.alive()
        notifier.status(status_line())
        await sleep_until_next_tick(interval)
