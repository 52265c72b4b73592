"""The modules of the daemon and its tool: what holds for all that they define is looked at in all of them, not in those
that some other test happened to import."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Final

import wazuh_comms_trio

__all__ = ["import_all"]

_PACKAGE: Final = "wazuh_comms_trio"

#: The library for the classic daemons, which the daemon doesn't use.
_ELSEWHERE: Final = (f"{_PACKAGE}.transport", f"{_PACKAGE}.testing.daemons")


def import_all() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(wazuh_comms_trio.__path__, f"{_PACKAGE}."):
        if not found.name.endswith("__main__") and not found.name.startswith(_ELSEWHERE):
            yield import_module(found.name)
