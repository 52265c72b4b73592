"""How costs grow with what a node keeps: embedded backends, one worker.

    scripts/bench growth [--quick] [--json] [--picture FILE] [--documents N] [--agents N] [--commands N] [--only NAME]

Documents from 0 to 10⁶, agents from 10² to 10⁵, commands from 0 to 10⁵ unless told otherwise, each on a state of its
own. Costs are CPU, since the time of a disk's fsync hardly depends on any of it and is another one on every machine: of
the daemon's process for requests and its start (until it serves), of the store's threads for writes, of the tool's
process for its commands. Memory is resident. ``--picture`` draws the curves: docs/growth.svg is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.growth.measures import Figures, Site, measure_agents, measure_commands, measure_documents
from bench.growth.picture import Curve, draw
from bench.service import some_of

NAMES = ("documents", "agents", "commands")
ROUNDS = 40


def sizes(first: int, last: int, *, zero: bool) -> list[int]:
    """1, 3, 10, 30, ... times ``first``, and ``last``."""
    found = {first * step * 10**power for step in (1, 3) for power in range(8)}
    return [0] * zero + sorted(size for size in found if size < last) + [last]


def unit_of(name: str) -> str:
    if name.endswith("memory"):
        return "MB"
    if name.startswith(("start", "agents ", "commands ", "backup")):
        return "CPU s"
    return "CPU ms"


def curves_of(over: str, measured: Sequence[tuple[int, Figures]]) -> list[Curve]:
    names = dict.fromkeys(name for _, figures in measured for name in figures)
    return [
        Curve(name, over, unit_of(name), [(size, figures[name]) for size, figures in measured if name in figures])
        for name in names
    ]


def table(over: str, measured: Sequence[tuple[int, Figures]]) -> str:
    lines = [f"{over:<28}" + "".join(f"{size:>10}" for size, _ in measured)]
    for curve in curves_of(over, measured):
        values = dict(curve.points)
        cells = [f"{values[size]:>10.3g}" if size in values else f"{'':>10}" for size, _ in measured]
        lines.append(f"{f'{curve.name}, {curve.unit}':<28}" + "".join(cells))
    return "\n".join(lines)


def measure(over: str, counts: Sequence[int], of_size: Callable[[Site, int], Figures]) -> list[tuple[int, Figures]]:
    measured = []
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-bench-") as name:
        site = Site(Path(name))
        for count in counts:
            print(f"{over}: {count}", file=sys.stderr, flush=True)
            measured.append((count, of_size(site, count)))
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of it: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="an SVG file for the curves")
    parser.add_argument("--documents", type=int, metavar="N", help="how many at most (1000000)")
    parser.add_argument("--agents", type=int, metavar="N", help="how many at most (100000)")
    parser.add_argument("--commands", type=int, metavar="N", help="how many at most (100000)")
    parser.add_argument(
        "--only", type=some_of(NAMES), default=NAMES, metavar="NAME[,NAME...]", help=f"of {', '.join(NAMES)}"
    )
    options = parser.parse_args()
    share = 100 if options.quick else 1
    documents = options.documents or 1_000_000 // share
    agents = options.agents or 100_000 // share
    commands = options.commands or 100_000 // share
    rounds = 5 if options.quick else ROUNDS
    plans: dict[str, tuple[list[int], Callable[[Site, int], Figures]]] = {
        "documents": (sizes(1000, documents, zero=True), lambda site, count: measure_documents(site, count, rounds)),
        "agents": (sizes(100, agents, zero=False), measure_agents),
        "commands": (sizes(100, commands, zero=True), measure_commands),
    }
    results = {over: measure(over, *plans[over]) for over in plans if over in options.only}
    if options.picture is not None:
        curves = [curve for over, measured in results.items() for curve in curves_of(over, measured)]
        options.picture.write_text(draw(curves, "What a node keeps and what it costs: embedded backends, one worker"))
    if options.json:
        rows = {over: [{over: size, **figures} for size, figures in measured] for over, measured in results.items()}
        print(json.dumps(rows, indent=2))
    else:
        print("\n\n".join(table(over, measured) for over, measured in results.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
