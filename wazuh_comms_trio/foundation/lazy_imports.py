"""Packages that show many names and import none of their modules before a name is asked for (PEP 562).

A package lists its names once, as imports under ``TYPE_CHECKING``, which type checkers and editors read; the table that
Python needs is made from that block by ``scripts/make-docs`` and kept in :mod:`.public_names`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from wazuh_comms_trio.foundation.extras import how_to_install
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
        try:
            value: object = getattr(import_module(source), name)
        except ModuleNotFoundError as error:
            if (named := _naming_the_extra(error, f"{package}.{name}")) is None:
                raise
            raise named from error
        setattr(module, name, value)
        return value

    vars(module).update(__getattr__=get_attribute, __dir__=lambda: list(names), __all__=list(names))


def _naming_the_extra(error: ModuleNotFoundError, what: str) -> ModuleNotFoundError | None:
    """The bare installation has what most of the transport needs; everything else is in the extra ``daemon``. None for
    an error that says so already, or is about a module of ours."""
    missing = error.name or "a module"
    if missing.startswith("wazuh_comms_trio") or "pip install" in str(error):
        return None
    return ModuleNotFoundError(f"{what} needs {missing}: {how_to_install('daemon')}", name=error.name, path=error.path)
