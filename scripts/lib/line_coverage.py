"""Which lines of the package ran, in the tests' process and in every one they start. ``scripts/test`` uses it.

Slipcover collects: it puts a call in front of each line when a module is imported, so that the tests take about a tenth
longer (on Python 3.11; coverage.py's trace function doubles their time there). coverage.py reports.

    line_coverage.py prepare FOLDER  from now on a Python of this environment collects while ``LINE_COVERAGE`` is FOLDER
    line_coverage.py report FOLDER   writes what was collected as coverage.py's data, for ``coverage report``

A process writes what it collected into the folder when it ends, in order or by ``os._exit``; one that is killed
doesn't.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

PACKAGE = "wazuh_comms_trio"


class Collector:
    """``package``: the folder whose modules are measured; copies elsewhere, as the upgrade tests run, aren't."""

    def __init__(self, package: Path, into: Path) -> None:
        from slipcover import Slipcover

        # Its calls stay in the code: exchanging the code of functions that run is what could disturb a test.
        self.slipcover: Any = Slipcover(d_miss_threshold=sys.maxsize, exclude_lines=[])
        self.package = f"{package}{os.sep}"
        self.into = into

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader and spec.loader.path.startswith(self.package):
            spec.loader = MeasuredLoader(name, spec.loader.path, self)
        return spec

    def save(self) -> None:
        with suppress(OSError):  # the working folder may be gone
            self.slipcover.get_coverage()
        lines = {file: sorted(numbers) for file, numbers in self.slipcover.all_seen.items()}
        with suppress(OSError):  # another user's process, a limit of descriptors
            (self.into / f"{os.getpid()}-{os.urandom(8).hex()}.json").write_text(json.dumps(lines))


class MeasuredLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, collector: Collector) -> None:
        super().__init__(name, path)
        self.collector = collector

    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        return None if code is None else self.collector.slipcover.instrument(code)


def collect(root: Path, into: Path) -> None:
    collector = Collector(root / PACKAGE, into)
    leave = os._exit

    def save_and_leave(status: int) -> NoReturn:
        collector.save()
        leave(status)

    atexit.register(collector.save)
    os._exit = save_and_leave
    sys.meta_path.insert(0, collector)  # type: ignore[arg-type]


def prepare(folder: Path) -> None:
    """Empty the folder, and have site.py begin to collect in each process that the variable reaches."""
    import sysconfig

    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    names = {"__name__": "collecting", "__file__": __file__}
    start = f'import os; os.environ.get("LINE_COVERAGE") and exec(open({__file__!r}).read(), {names!r})\n'
    Path(sysconfig.get_path("purelib"), "line_coverage.pth").write_text(start)


def report(root: Path, folder: Path) -> None:
    from coverage import CoverageData

    seen: dict[str, set[int]] = {str(file): set() for file in (root / PACKAGE).rglob("*.py")}
    for part in folder.glob("*.json"):
        for file, lines in json.loads(part.read_text()).items():
            seen.setdefault(file, set()).update(lines)
    data = CoverageData(str(folder / "data"))
    data.erase()
    data.add_lines(seen)
    data.write()


ROOT = Path(__file__).resolve().parents[2]

if __name__ == "collecting":
    collect(ROOT, Path(os.environ["LINE_COVERAGE"]))
elif __name__ == "__main__":
    _, what, where = sys.argv
    if what == "prepare":
        prepare(Path(where).absolute())
    else:
        report(ROOT, Path(where).absolute())
