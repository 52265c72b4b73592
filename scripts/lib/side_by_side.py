"""``scripts/test --side-by-side``: all checks and tests, in less time on two cores.

First five lanes at once. Two have what nothing but the CPU holds up: the simulator's seeds, the checks, the newest
Python's run, and the tests whose time is trio's mock clock. They have the lowest priority, so that the others get the
CPU whenever they want it: tests that mostly wait, for programs that start (OpenSearch, a systemd, builds) and for
stores, with limits of many seconds. Afterwards all other tests that wait for sockets, threads or processes, one after
the other: some judge times, and they have the machine to themselves.

A part's output is shown when it ends, with pytest's own closing line. The last line is the sum of these, in pytest's
form.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NoReturn

import attrs

__all__ = ["Part", "Run", "closing_line", "make_parts"]

#: Markers of the tests that real time, or other programs, may hold up.
REAL = ("real_clock", "processes", "indexer", "balancers", "prometheus", "machine")
#: But for what judges its speed.
SIMULATION = ("tests/simulation/test_simulation.py", "tests/simulation/test_module_state.py")
#: Whose tests wait for programs, threads or disks, and judge no times. Each about a third, by the time they take.
INDEXER = ("tests/indexer",)
PROGRAMS = ("tests/runbooks", "tests/scripts", "tests/systemd", "tests/upgrade")
STORES = ("tests/backends", "tests/backup", "tests/contract", "tests/quarantine")
BESIDE = (*INDEXER, *PROGRAMS, *STORES)
#: About half of the tests that wait for nothing, by the time they take. The others are the rest of ``tests``.
FIRST_HALF = ("tests/api", "tests/foundation", "tests/http", "tests/services", "tests/transport", "tests/wire")

#: Seconds for parts that are interrupted. `.ci/run` gives some more.
LAST_STEPS = 45
_ENDING = (signal.SIGINT, signal.SIGTERM)
_CLOSING = re.compile(r"^=*\s*(\d+ [a-z]+(?:, \d+ [a-z]+)*) in [\d.]+s\b")
#: In the order of pytest's own line. What one part deselects is another part's.
_WORDS = ("failed", "passed", "skipped", "xfailed", "xpassed", "warning", "warnings", "error", "errors")
_NO_TESTS = 5  # pytest's exit status


@attrs.frozen
class Part:
    """``counted``: it is one of pytest's, whose closing line goes into the sum."""

    name: str
    command: Sequence[str]
    counted: bool = True


def make_parts(python: str, marks: str, arguments: Sequence[str]) -> tuple[Sequence[Sequence[Part]], Part]:
    """The lanes, and what runs alone after them. Every test that ``marks`` (pytest's ``-m``) takes is in one part."""
    real = f"({' or '.join(REAL)})"

    def tests(name: str, kind: str, *which: str) -> Part:
        expression = " and ".join(f"({each})" for each in (marks, kind) if each)
        return Part(name, (python, "-m", "pytest", *arguments, *(["-m", expression] if expression else []), *which))

    def without(*paths: str) -> list[str]:
        return ["tests", *(f"--ignore={path}" for path in paths)]

    low = (
        (
            tests("the simulator", "", *SIMULATION),
            tests("tests on the mock clock, first half", f"not {real}", *FIRST_HALF),
        ),
        (
            Part("checks", ("scripts/test", "--checks"), counted=False),
            Part("newest Python", ("tests/pythons/run",), counted=False),
            tests("tests on the mock clock, second half", f"not {real}", *without(*SIMULATION, *BESIDE, *FIRST_HALF)),
        ),
    )
    lanes = (
        *([attrs.evolve(part, command=("nice", "-n", "19", *part.command)) for part in lane] for lane in low),
        [tests("tests with real indexers", "", *INDEXER)],
        [tests("tests that wait for other programs", "", *PROGRAMS)],
        [tests("tests of stores", "", *STORES)],
    )
    return lanes, tests("tests that wait", real, *without(*SIMULATION, *BESIDE))


def closing_line(outputs: Iterable[str], seconds: float) -> str | None:
    """The sum of pytest's closing lines, the last one of each output; None when one has none."""
    total = Counter[str]()
    for output in outputs:
        found = [match for line in output.splitlines() if (match := _CLOSING.match(line))]
        if not found:
            return None
        for number, word in (each.split(" ") for each in found[-1][1].split(", ")):
            total[word] += int(number)
    return f"{', '.join(f'{total[word]} {word}' for word in _WORDS if total[word])} in {seconds:.2f}s"


class Run:
    """All parts run, whatever happened in others. One of which nothing is known has failed."""

    def __init__(self) -> None:
        self._outputs: list[str] = []
        self._succeeded: set[int] = set()  # parts, by their identity
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._interrupted = False

    def run(self, lanes: Sequence[Sequence[Part]], alone: Part) -> int:
        """Returns the exit status: 1 when any part failed. Ctrl-C and SIGTERM end all of them."""
        began = time.monotonic()
        for number in _ENDING:
            signal.signal(number, _interrupt)
        threads = [threading.Thread(target=self._run_lane, args=(lane,), daemon=True) for lane in lanes]
        last = threading.Thread(target=self._run_lane, args=((alone,),), kwargs={"at_once": True}, daemon=True)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            last.start()
            last.join()
        except BaseException:
            self._end()
            raise
        closing = closing_line(self._outputs, time.monotonic() - began)
        failed = [part.name for part in (*chain(*lanes), alone) if id(part) not in self._succeeded]
        if failed or closing is None:
            print(f"Parts that failed: {', '.join(failed) or 'one that has no closing line'}")
        if closing is not None:
            print(closing)
        return int(bool(failed) or closing is None)

    def _end(self) -> None:
        """Of what still runs: as by Ctrl-C, so that it cleans up, and soon after that for good. Nothing is begun."""
        with self._lock:
            self._interrupted = True
        for process in self._processes:
            _signal(process, signal.SIGINT)
        end = time.monotonic() + LAST_STEPS
        for process in self._processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:  # one that ignores Ctrl-C, as what a shell started in the background
                _signal(process, signal.SIGKILL)
                process.wait()

    def _run_lane(self, lane: Sequence[Part], *, at_once: bool = False) -> None:
        """In a thread of its own: a signal is the main one's, so that what a part says while it cleans up is read."""
        for part in lane:
            try:
                self._run_part(part, at_once=at_once)
            except OSError as error:
                print(f"--- {part.name}: {error}", flush=True)

    def _run_part(self, part: Part, *, at_once: bool) -> None:
        """``at_once``: each line is shown when it comes; of several lanes they would mix."""
        began = time.monotonic()
        lines: list[str] = []
        with self._lock:
            if self._interrupted:
                return
            process = subprocess.Popen(
                part.command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,  # a terminal's Ctrl-C, or what `timeout` sends, comes once, from here
            )
            self._processes.append(process)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if at_once:
                    print(line, end="", flush=True)
        output = "".join(lines)
        nothing = part.counted and process.returncode == _NO_TESTS  # none of these are asked for
        with self._lock:
            if not at_once:
                print(output, end="")
            print(f"--- {part.name}: {time.monotonic() - began:.0f} s, status {process.returncode}", flush=True)
            if process.returncode == 0 or nothing:
                self._succeeded.add(id(part))
            if part.counted and not nothing:
                self._outputs.append(output)


def _interrupt(*_: object) -> NoReturn:
    """Once: a second one would end the cleaning up. ``timeout`` sends two."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To all of a part that runs, since some are started by a shell."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def main() -> int:
    parser = argparse.ArgumentParser(description="The other arguments go to each pytest.", allow_abbrev=False)
    parser.add_argument("--marks", default="", help="pytest's -m for all parts")
    arguments, for_pytest = parser.parse_known_args()
    for path in (*SIMULATION, *BESIDE, *FIRST_HALF):
        if not Path(path).exists():
            parser.error(f"there is no {path}")
    lanes, alone = make_parts(sys.executable, arguments.marks, for_pytest)
    return Run().run(lanes, alone)


if __name__ == "__main__":
    raise SystemExit(main())
