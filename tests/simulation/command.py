"""The command line: many seeds, or one; what failed, and the shortest story that it could find."""

from __future__ import annotations

import argparse
import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path

from tests.simulation import determinism
from tests.simulation.plans.plan import make_plan
from tests.simulation.planted.faults import search_all
from tests.simulation.run import Result, prepare, run_world

__all__ = ["main"]

#: Lines of the story that are shown.
STORY = 60
PROGRESS_SECONDS = 10.0


def run_seed(seed: int, *, only: Iterable[int] | None = None) -> Result:
    determinism.reset(seed)
    return run_world(make_plan(seed, only=None if only is None else frozenset(only)))


def shrink(failed: Result) -> Result:
    """Leaves out one fault after the other as long as the same check fails."""
    assert failed.violation is not None
    best = failed
    for fault in failed.plan.faults:
        kept = [each.number for each in best.plan.faults if each is not fault and each.number != fault.number]
        tried = run_seed(failed.plan.seed, only=kept)
        if tried.violation is not None and tried.violation.check == failed.violation.check:
            best = tried
    return best


def tell(result: Result) -> None:
    assert result.violation is not None
    print(f"seed {result.plan.seed}: {result.violation}")
    print(f"  {result.plan}")
    for fault in result.plan.faults:
        print(f"  {fault}")
    numbers = ",".join(str(fault.number) for fault in result.plan.faults)
    print(f"  again: scripts/simulate --seed {result.plan.seed} --only '{numbers}'")
    print(f"  the last {STORY} steps:")
    for line in result.trace.lines[-STORY:]:
        print(f"    {line}")
    sys.stdout.flush()


def run_many(
    seeds: Sequence[int],
    *,
    quiet: bool = False,
    stop_at_first: bool = False,
    hashes: bool = False,
    shrinks: bool = True,
    limit: float = inf,
) -> int:
    """Returns how many failed. ``limit``: seconds after which no further seed is begun."""
    began, told = time.perf_counter(), time.perf_counter()
    began_cpu = time.process_time()
    done, requests, strikes, failures = 0, 0, Counter[tuple[str, str]](), []
    fewest, stores = inf, Counter[str]()
    for done, seed in enumerate(seeds, 1):
        result = run_seed(seed)
        requests += result.requests
        fewest = min(fewest, result.requests)
        stores[result.plan.stores] += 1
        strikes.update(result.trace.coverage)
        if hashes:
            print(f"hash of {seed}: {result.trace.hash}")
        if result.violation is not None:
            failures.append(seed)
            tell(shrink(result) if shrinks else result)
            if stop_at_first:
                break
        if time.perf_counter() - told > PROGRESS_SECONDS and not quiet:
            told = time.perf_counter()
            print(f"{done} of {len(seeds)} seeds, {requests} requests, {len(failures)} failed", flush=True)
        if time.perf_counter() - began > limit:
            break
    seconds = time.process_time() - began_cpu
    print(
        f"{done} seeds in {seconds:.1f} s of a core: {requests} requests ({requests / seconds:.0f}/s),"
        f" {strikes.total()} strikes of faults ({strikes.total() / seconds:.0f}/s), {len(failures)} failed: {failures}"
    )
    shares = ", ".join(f"{number / done:.0%} {name}" for name, number in sorted(stores.items()))
    print(f"at least {fewest} requests in a seed; {shares}")
    if not quiet:
        show_coverage(strikes)
    return len(failures)


def show_coverage(strikes: Counter[tuple[str, str]]) -> None:
    print("What struck where:")
    for (fault, place), number in sorted(strikes.items()):
        print(f"  {fault:<24} {place:<24} {number:>8}")


def run_one(seed: int, trace: Path | None, only: Iterable[int] | None) -> int:
    began = time.process_time()
    result = run_seed(seed, only=only)
    seconds = time.process_time() - began
    if trace is not None:
        trace.write_text("\n".join(result.trace.lines) + "\n")
    if result.violation is not None:
        tell(result)
    print(f"seed {seed}: {result.plan}")
    print(f"{result.requests} requests, {result.trace.coverage.total()} strikes in {seconds:.2f} s of a core")
    print(f"trace hash {result.trace.hash}")
    return result.violation is not None


def _spread(arguments: argparse.Namespace) -> int:
    """``--jobs``: each child has every n-th seed."""
    children = []
    for job in range(arguments.jobs):
        command = [sys.executable, "-m", "tests.simulation", "--from", str(arguments.start + job)]
        seeds = len(range(job, arguments.seeds, arguments.jobs))
        command += ["--seeds", str(seeds), "--step", str(arguments.jobs), "--seconds", str(arguments.seconds)]
        switches = {"--quiet": arguments.quiet, "--stop": arguments.stop, "--no-shrink": arguments.no_shrink}
        switches["--hashes"] = arguments.hashes
        command += [switch for switch, given in switches.items() if given]
        children.append(subprocess.Popen(command))
    try:
        statuses = [child.wait() for child in children]
    except KeyboardInterrupt:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait()
        raise
    return any(statuses)  # also of a child that was killed


def main() -> int:
    """Returns the exit status."""
    try:
        return _main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ``--jobs``: it may come from the terminal and from the parent
        return 128 + signal.SIGINT


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--from", type=int, default=1, dest="start", help="the first (1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help="this one alone; prints its trace's hash")
    parser.add_argument("--only", help="with --seed: numbers of the faults that are kept, 1,2,3")
    parser.add_argument("--trace", type=Path, help="with --seed: every step goes into this file")
    parser.add_argument("--quiet", action="store_true", help="no progress, no map of faults")
    parser.add_argument("--stop", action="store_true", help="at the first failure")
    parser.add_argument("--no-shrink", action="store_true", help="tell of a failure as it came")
    parser.add_argument("--planted", nargs="*", metavar="NAME", help="put these faults in (all), one at a time")
    parser.add_argument("--hashes", action="store_true", help="each seed's trace hash")
    parser.add_argument("--seconds", type=float, default=inf, help="no seed is begun after so many")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    prepare()
    if arguments.seed is not None:
        only = None if arguments.only is None else [int(each) for each in arguments.only.split(",") if each]
        return run_one(arguments.seed, arguments.trace, only)
    if arguments.planted is not None:
        return bool(search_all(arguments.planted, arguments.seeds))
    if arguments.jobs > 1:
        return _spread(arguments)
    seeds = range(arguments.start, arguments.start + arguments.seeds * arguments.step, arguments.step)
    failed = run_many(
        seeds,
        quiet=arguments.quiet,
        stop_at_first=arguments.stop,
        hashes=arguments.hashes,
        shrinks=not arguments.no_shrink,
        limit=arguments.seconds,
    )
    return bool(failed)
