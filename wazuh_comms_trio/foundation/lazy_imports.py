"""Packages that show many names and import none of their modules before a name is asked for (PEP 562).

A package lists its names once, as imports under ``TYPE_CHECKING``, which type checkers and editors read; the table that
Python needs is made from that block by ``scripts/make-docs`` and kept in :mod:`.public_names`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from wazuh_comms_trio.foundation.public_names import PUBLIC_NAMES


def lazy_imports(package: str) -> None:
    """Give ``package``, which is being imported, its ``__getattr__``, ``__dir__`` and ``__all__``. A name's module is
    imported when the name is first asked for."""
    modules = PUBLIC_NAMES[package]
    names = sorted(modules)
    module = sys.modules[package]

    def get_attribute(name: str) -> object:
        source = modules.get(name)
        if source is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(source), name)
        setattr(module, name, value)
        return value

    vars(module).update(__getattr__=get_attribute, __dir__=lambda: list(names), __all__=list(names))
