"""``scripts/lib/side_by_side.py``: no test is left out or runs twice, the sum is that of the parts, and one part that
fails fails the run."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.scripts.tree import ROOT
from tests.supervisor.nodes import is_alive

PROGRAM = ROOT / "scripts/lib/side_by_side.py"

_spec = importlib.util.spec_from_file_location("side_by_side", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
side_by_side = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(side_by_side)
Part = side_by_side.Part

KINDS = ("plain", "long", *side_by_side.REAL)
OTHERS = ("tests/other", "tests", "tests/simulation")
TESTS = "import pytest\n\ndef test_plain(): pass\n\n" + "\n\n".join(
    f"@pytest.mark.{kind}\ndef test_{kind}(): pass" for kind in KINDS[1:]
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Every kind of test in every folder that has a place of its own, in another one, and beside them."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n" + "".join(f"    {kind}\n" for kind in KINDS[1:]))
    named = [*side_by_side.SIMULATION, *side_by_side.BESIDE, *side_by_side.FIRST_HALF]
    for number, place in enumerate([*named, *OTHERS]):
        path = tmp_path / place
        if path.suffix != ".py":
            path /= f"test_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TESTS)
    return tmp_path


def collected(tree: Path, command: list[str]) -> list[str]:
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [*command, "--collect-only"]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return [line for line in run.stdout.splitlines() if "::" in line]


@pytest.mark.processes
def test_each_test_is_in_one_part(tree: Path) -> None:
    pytest_options = ["-q", "-p", "no:cacheprovider"]
    lanes, alone = side_by_side.make_parts(sys.executable, "not long", pytest_options)
    parts = [part for lane in lanes for part in lane if part.counted]
    found = Counter(name for part in [*parts, alone] for name in collected(tree, list(part.command)))
    whole = collected(tree, [sys.executable, "-m", "pytest", *pytest_options, "-m", "not long", "tests"])
    assert len(whole) == (len(KINDS) - 1) * len(list(tree.rglob("test_*.py")))
    assert found == Counter(whole)


def test_without_marks_all_are_taken() -> None:
    lanes, alone = side_by_side.make_parts("python", "", ["-q"])
    assert lanes[0][0].command == ("nice", "-n", "19", "python", "-m", "pytest", "-q", *side_by_side.SIMULATION)
    assert alone.command[4:6] == ("-m", f"(({' or '.join(side_by_side.REAL)}))")


def test_the_sum() -> None:
    first = "..F [100%]\n=== short test summary info ===\nFAILED x - 3 passed in 2.0s\n1 failed, 2 passed in 0.10s\n"
    second = "====== 40 passed, 3 skipped, 7 deselected in 65.00s (0:01:05) ======\n"
    assert side_by_side.closing_line([first, second], 70.123) == "1 failed, 42 passed, 3 skipped in 70.12s"
    assert side_by_side.closing_line([first, "Killed\n"], 70.0) is None


def ends(text: str, status: int = 0, *, counted: bool = True) -> object:
    return Part(f"ends with {status}", [sys.executable, "-c", f"print({text!r}); exit({status})"], counted)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("last", "status", "closing"),
    [
        (ends("5 passed in 1.00s"), 0, "9 passed in "),
        (ends("1 failed in 1.00s", 1), 1, "1 failed, 4 passed in "),
        (ends("9 deselected in 1.00s", 5), 0, "4 passed in "),  # what was asked for is in other parts
        (ends("9 passed in 1.00s", 5, counted=False), 1, "4 passed in "),
        (ends("checks failed", 1, counted=False), 1, "4 passed in "),
        (ends("Segmentation fault", -signal.SIGSEGV), 1, "Parts that failed: "),
        (ends("nothing"), 1, "Parts that failed: one that has no closing line"),
    ],
)
def test_the_end(last: object, status: int, closing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert side_by_side.Run().run([[last], [ends("3 passed in 1.00s")]], ends("1 passed in 1.00s")) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(closing)


@pytest.mark.processes
def test_parts_that_cannot_be_run_fail(capsys: pytest.CaptureFixture[str]) -> None:
    lane = [Part("isn't there", ["/nowhere/nothing"]), ends("3 passed in 1.00s")]
    assert side_by_side.Run().run([lane], ends("1 passed in 1.00s")) == 1
    assert "Parts that failed: isn't there\n4 passed in " in capsys.readouterr().out


@pytest.mark.processes
def test_whatever_bytes_a_part_says(capsys: pytest.CaptureFixture[str]) -> None:
    says = "import sys; sys.stdout.buffer.write(b'\\xff\\n1 failed in 1.00s\\n'); sys.exit(1)"
    lane = [Part("bytes", [sys.executable, "-c", says])]
    assert side_by_side.Run().run([lane], ends("1 passed in 1.00s")) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 failed, 1 passed in ")


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("is_alone", [False, True])
def test_a_signal_ends_all_parts(is_alone: bool, ignored: bool, number: signal.Signals, tmp_path: Path) -> None:
    """Also what a shell started for one, and what ignores Ctrl-C. It is told to this process alone here, and twice, as
    by ``timeout``."""
    handler = "SIG_IGN" if ignored else "default_int_handler"
    wait = (
        f"import os, pathlib, signal; signal.signal(signal.SIGINT, signal.{handler})\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "(place / 'pid').write_text(str(os.getpid()))\n"
        "(place / 'pid').rename(place / 'begun')\n"
        "try:\n"
        "    while True: signal.pause()\n"
        "finally:\n"
        "    print('cleaning up', flush=True)\n"
        "    (place / 'cleaned up').touch()\n"
    )
    shell = ("sh", "-c", '"$0" -c "$1"; true', sys.executable, wait)
    program = (
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})\n"
        "import side_by_side\n"
        f"side_by_side.LAST_STEPS = {1 if ignored else 60}\n"
        f"after = side_by_side.Part('after it', ('touch', {str(tmp_path / 'after')!r}))\n"
        f"waits = side_by_side.Part('waits', {shell!r})\n"
        f"side_by_side.Run().run(*{'([], waits)' if is_alone else '([[waits, after]], after)'})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists() and process.poll() is None:
            os.sched_yield()
        process.send_signal(number)
        process.send_signal(number)
        assert "KeyboardInterrupt" in process.communicate(timeout=90)[1]
    assert process.returncode != 0
    assert not (tmp_path / "after").exists()
    assert (tmp_path / "cleaned up").exists() is not ignored
    while is_alive(int((tmp_path / "begun").read_text())):  # until it is reaped
        os.sched_yield()
