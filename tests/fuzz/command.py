"""The command line: one target, for minutes or for so many inputs, guided by coverage where atheris is there."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.fuzz.mutator import inputs
from tests.fuzz.target import Target
from tests.fuzz.targets import load, names

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
#: Whose branches guide atheris.
GUIDES = ("wazuh_comms_trio", "h11", "yaml", "tarfile")
PROGRESS_SECONDS = 10.0
#: An input that takes longer isn't read in linear time.
SLOWEST_SECONDS = 60
MEGABYTES = 2048


def folder_of(name: str) -> Path:
    """Where its corpus grows, and what failed is put."""
    folder = ROOT / ".cache" / "fuzz" / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    return folder


def fuzz_blindly(name: str, arguments: argparse.Namespace) -> int:
    """Returns how many inputs failed, each in a way of its own."""
    target, folder = load(name), folder_of(name)
    began = told = time.perf_counter()
    failures: set[str] = set()
    done = 0
    for seed in count(arguments.seed):
        for data in inputs(target, 100_000, seed):
            try:
                target.check(data)
            except Exception as error:
                _keep(folder, data, error, failures)
            done += 1
            now = time.perf_counter()
            if now - told > PROGRESS_SECONDS:
                told = now
                print(f"{name}: {done} inputs, {len(failures)} failures", flush=True)
            if now - began > 60 * arguments.minutes or done == arguments.cases:
                print(f"{name}: {done} inputs in {now - began:.0f} s, without coverage, {len(failures)} failures")
                return len(failures)
    raise AssertionError("unreachable")


def _keep(folder: Path, data: bytes, error: Exception, known: set[str]) -> None:
    """The first input of each way to fail."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
    way = f"{type(error).__name__} at {where}"
    if way in known:
        return
    known.add(way)
    file = folder / f"failed-{hashlib.sha256(data).hexdigest()[:16]}"
    file.write_bytes(data)
    print(f"{way}: {str(error)[:500]}\n  {data[:200]!r}\n  {file}", flush=True)


def fuzz_guided(name: str, arguments: argparse.Namespace) -> None:
    """Ends the process, with a status that isn't 0 after the first failure."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # of requirements-fuzz.lock

    with atheris.instrument_imports(include=list(GUIDES), enable_loader_override=False):
        target = load(name)
    folder = folder_of(name)
    for data in target.seeds:
        (folder / "corpus" / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) <= 64))
    options = {
        "max_len": target.longest,
        "max_total_time": int(60 * arguments.minutes) if arguments.minutes < 1e6 else 0,
        "runs": arguments.cases or -1,
        "seed": arguments.seed,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MEGABYTES,
        "dict": words,
        "artifact_prefix": f"{folder}/failed-",
        "print_final_stats": 1,
    }
    command = [name, *(f"-{option}={value}" for option, value in options.items()), str(folder / "corpus")]
    atheris.Setup(command, target.check)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def try_one(target: Target, file: Path) -> int:
    target.check(file.read_bytes())
    print(f"{file}: passes")
    return 0


def _spread(arguments: argparse.Namespace) -> int:
    """``--jobs``: processes with seeds of their own, over one corpus."""
    children = []
    for job in range(arguments.jobs):
        command: list[Any] = [sys.executable, "-m", "tests.fuzz", arguments.target, "--seed", arguments.seed + job]
        command += ["--minutes", arguments.minutes]
        if arguments.cases:
            command += ["--cases", -(-arguments.cases // arguments.jobs)]
        children.append(subprocess.Popen([str(each) for each in command], cwd=ROOT))
    return max(child.wait() for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", choices=names(), help="what is fuzzed: %(choices)s", metavar="TARGET")
    parser.add_argument("--minutes", type=float, help="how long (1, or with --cases without end)")
    parser.add_argument("--cases", type=int, default=0, help="how many inputs at most")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (1)")
    parser.add_argument("--try", type=Path, dest="file", help="this input alone")
    parser.add_argument("--blind", action="store_true", help="without coverage")
    arguments = parser.parse_args()
    if arguments.minutes is None:
        arguments.minutes = 1e9 if arguments.cases else 1.0
    if arguments.file is not None:
        return try_one(load(arguments.target), arguments.file)
    if arguments.jobs > 1:
        return _spread(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        if arguments.blind or importlib.util.find_spec("atheris") is None:
            return bool(fuzz_blindly(arguments.target, arguments))
        fuzz_guided(arguments.target, arguments)
    return 0
