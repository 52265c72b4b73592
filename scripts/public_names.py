"""wazuh_comms_trio/foundation/public_names.py: where the packages' public names are imported from, read from the one
place that lists them, the ``if TYPE_CHECKING:`` block of each package."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("wazuh_comms_trio", "wazuh_comms_trio.testing", "wazuh_comms_trio.transport")

INTRODUCTION: Final = '''\
"""Made by ``scripts/make-docs`` from the packages' ``TYPE_CHECKING`` blocks: change those instead."""

from __future__ import annotations

from typing import Final

#: package -> public name -> the module that has it
PUBLIC_NAMES: Final[dict[str, dict[str, str]]] = {
'''


def typed_block(package: str) -> dict[str, str]:
    """name -> module, as the package's block says. ``ValueError`` for an import that isn't ``as`` its own name, which
    type checkers would take for private."""
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text()
    (block,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    found: dict[str, str] = {}
    for node in block.body:
        if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
            raise ValueError(f"{package}, line {node.lineno}: only 'from module import name as name' belongs here")
        for alias in node.names:
            if alias.asname != alias.name:
                raise ValueError(f"{package}: {alias.name} needs 'as {alias.name}', or type checkers call it private")
            found[alias.name] = node.module
    return found


def tables() -> str:
    """The module's text."""
    parts = [INTRODUCTION]
    for package in PACKAGES:
        parts.append(f'    "{package}": {{\n')
        parts += [f'        "{name}": "{module}",\n' for name, module in sorted(typed_block(package).items())]
        parts.append("    },\n")
    return "".join([*parts, "}\n"])
