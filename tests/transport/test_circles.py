"""No module of the library imports itself by way of others, not even within functions."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

ROOMS = ("wazuh_comms_trio.transport", "wazuh_comms_trio.testing", "wazuh_comms_trio.wire")


def test_no_circle() -> None:
    graph = grimp.build_graph("wazuh_comms_trio", exclude_type_checking_imports=True, cache_dir=None)
    modules = {module for module in graph.modules if module.startswith(ROOMS)}
    imports = {module: graph.find_modules_directly_imported_by(module) & modules for module in modules}
    assert len(imports) > 50
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
