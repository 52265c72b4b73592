"""What the packages show, and that their three lists of it agree."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import wazuh_comms_trio
import wazuh_comms_trio.testing
import wazuh_comms_trio.transport

PACKAGES = [wazuh_comms_trio, wazuh_comms_trio.transport]

#: what programs written against the framework, or the published description, import
PROMISED = {
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION",
    "BaseQueue",
    "WazuhAnalysisdQueue",
    "WazuhAsyncProtocol",
    "WazuhAsyncSocket",
    "WazuhAsyncSocketJSON",
    "WazuhError",
    "WazuhException",
    "WazuhInternalError",
    "WazuhQueue",
    "WazuhSocket",
    "WazuhSocketJSON",
    "create_wazuh_queue_socket_msg",
    "create_wazuh_socket_message",
    "daemons",
    "wazuh_sendasync",
    "wazuh_sendsync",
}


def typed_block(package: ModuleType) -> dict[str, str]:
    """name -> module, as the block under TYPE_CHECKING says."""
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_exactly_the_public_names(package: ModuleType) -> None:
    assert sorted(package.__all__) == sorted(set(package.__all__))
    assert sorted(dir(package)) == sorted(package.__all__)
    assert set(package.__all__) >= PROMISED
    typed = typed_block(package)
    assert set(typed) == set(package.__all__) == set(package._HOMES)
    for name in package.__all__:
        assert typed[name] == f"wazuh_comms_trio.{package._HOMES[name]}"
        value = getattr(package, name)
        assert value is getattr(importlib.import_module(typed[name]), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == typed[name]
            assert value.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_name(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
    with pytest.raises(ImportError):
        exec(f"from {package.__name__} import nothing")  # noqa: S102 -- our own text


def test_a_star_import_brings_them_all() -> None:
    names: dict[str, object] = {}
    exec("from wazuh_comms_trio.transport import *", names)  # noqa: S102 -- our own text
    assert set(names) - {"__builtins__"} == set(wazuh_comms_trio.transport.__all__)


@pytest.mark.parametrize("name", sorted(wazuh_comms_trio.transport.__all__))
def test_public_methods_are_documented(name: str) -> None:
    value = getattr(wazuh_comms_trio.transport, name)
    if not inspect.isclass(value) or issubclass(value, tuple):
        return
    for attribute, member in vars(value).items():
        if not attribute.startswith("_") and inspect.isfunction(member):
            assert inspect.getdoc(member), f"{name}.{attribute}"
