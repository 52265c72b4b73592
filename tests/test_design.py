"""docs/design.md leads to files that are there, its tree is the package's, and no folder grows beyond what one can
survey, of the tests neither."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wazuh_comms_trio"
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
FOLDERS_OF_TESTS = sorted({path.parent for name in ("tests", "bench") for path in (ROOT / name).rglob("*.py")})


def test_every_file_that_the_design_names_exists() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", text)) | set(re.findall(r"^# ([\w/]+\.py)", text, re.MULTILINE))
    there = [path.relative_to(ROOT / "wazuh_comms_trio") for path in (ROOT / "wazuh_comms_trio").rglob("*.py")]
    missing = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)}
    assert len(named) > 30
    assert missing == set()


def tree_of_design() -> set[Path]:
    """The folders of the page's tree; two blanks more are one level deeper."""
    page = (ROOT / "docs" / "design.md").read_text()
    block = page.partition("\n    wazuh_comms_trio/\n")[2].partition("\n\n")[0]
    above: list[tuple[int, Path]] = [(4, PACKAGE)]
    found = set()
    for line in block.splitlines():
        depth = len(line) - len(line.lstrip())
        name = line.split()[0]
        while above[-1][0] >= depth:
            above.pop()
        path = above[-1][1] / name
        if name.endswith("/"):
            above.append((depth, path))
            found.add(path)
        else:
            assert path.is_file(), line
    return found


def test_the_tree_in_the_design_is_that_of_the_package() -> None:
    data = {PACKAGE / "transport" / "schemas"}  # no modules
    assert tree_of_design() - data == set(FOLDERS) - {PACKAGE}


def modules_of(folder: Path) -> list[Path]:
    """A room's modules: few, and none too long."""
    modules = list(folder.glob("*.py"))
    assert len(modules) <= 16  # its __init__ is one of them
    for module in modules:
        assert len(module.read_text().splitlines()) <= 400, module
    return modules


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_can_be_surveyed(folder: Path) -> None:
    assert modules_of(folder)
    assert (folder / "__init__.py").read_text().startswith('"""')


@pytest.mark.parametrize("folder", FOLDERS_OF_TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_of_tests_can_be_surveyed(folder: Path) -> None:
    assert modules_of(folder)


def quoted_functions() -> list[tuple[str, str]]:
    """The functions of the page's code, each by its name with its parameters as they stand there."""
    page = (ROOT / "docs" / "design.md").read_text()
    code = "".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    return re.findall(r"\bdef (\w+)\((.*?)\)(?= ->|$|\s*#)", code, re.MULTILINE)


def parameters_of_package(wanted: set[str]) -> dict[str, list[ast.arguments]]:
    """Those of the functions of these names, wherever they are."""
    found: dict[str, list[ast.arguments]] = {name: [] for name in wanted}
    for module in PACKAGE.rglob("*.py"):
        text = module.read_text()
        if any(f"def {name}(" in text for name in wanted):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in wanted:
                    found[node.name].append(node.args)
    return found


def names(arguments: ast.arguments) -> tuple[set[str], set[str]]:
    """Of all parameters, and of those without a default."""
    plain = [*arguments.posonlyargs, *arguments.args]
    needed = plain[: len(plain) - len(arguments.defaults)]
    needed += [one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return {one.arg for one in (*plain, *arguments.kwonlyargs)}, {one.arg for one in needed}


def test_the_page_quotes_functions_as_they_are() -> None:
    """It may leave out what has a default."""
    quoted = quoted_functions()
    assert len(quoted) > 20
    there = parameters_of_package({name for name, _ in quoted})
    for name, parameters in quoted:
        definition = ast.parse(f"def f({parameters}): ...").body[0]
        assert isinstance(definition, ast.FunctionDef)
        said = names(definition.args)[0]
        assert any(needed <= said <= every for every, needed in map(names, there[name])), (name, parameters)
