"""What the packages show, and that the table made from their one list of it is current."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import wazuh_comms_trio
import wazuh_comms_trio.testing
import wazuh_comms_trio.transport
from wazuh_comms_trio.foundation.public_names import PUBLIC_NAMES

ROOT = Path(__file__).parents[2]
PACKAGES = [wazuh_comms_trio, wazuh_comms_trio.testing, wazuh_comms_trio.transport]

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


def made() -> ModuleType:
    """What makes the table from the packages' TYPE_CHECKING blocks."""
    spec = importlib.util.spec_from_file_location("public_names", ROOT / "scripts/public_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_made_from_the_blocks() -> None:
    text = (ROOT / "wazuh_comms_trio/foundation/public_names.py").read_text()
    assert text == made().tables(), "run scripts/make-docs"
    assert [package.__name__ for package in PACKAGES] == list(PUBLIC_NAMES)


@pytest.mark.parametrize("package", PACKAGES)
def test_exactly_the_public_names(package: ModuleType) -> None:
    assert package.__all__ == sorted(set(package.__all__)) == sorted(dir(package))
    typed = made().typed_block(package.__name__)
    assert set(typed) == set(package.__all__)
    for name in package.__all__:
        value = getattr(package, name)
        assert value is getattr(importlib.import_module(typed[name]), name)
        assert vars(package)[name] is value
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == typed[name]


@pytest.mark.parametrize("package", [wazuh_comms_trio, wazuh_comms_trio.transport])
def test_what_was_promised(package: ModuleType) -> None:
    assert set(package.__all__) >= PROMISED
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


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
