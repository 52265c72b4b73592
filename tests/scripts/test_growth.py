"""``scripts/bench growth``: its sizes, its tables and its picture; what it measures is for a quiet machine."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bench.growth.__main__ import curves_of, sizes, table
from bench.growth.measures import documents_of, owner_of
from bench.growth.picture import draw

PICTURE = Path(__file__).parents[2] / "docs" / "growth.svg"
SVG = "{http://www.w3.org/2000/svg}"
MEASURED = [
    (0, {"start": 1.0}),
    (1000, {"start": 1.25, "delete <100>": 2.0}),
    (10_000, {"start": 1.5, "delete <100>": 8.0}),
]


def test_sizes_end_with_what_was_asked_for() -> None:
    assert sizes(1000, 1_000_000, zero=True) == [0, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
    assert sizes(100, 250, zero=False) == [100, 250]
    assert sizes(100, 50, zero=False) == [50]


def test_each_document_has_one_owner() -> None:
    count = 25_000
    found = {number: agent for agent in range(30) for number in documents_of(agent, count)}
    assert found == {number: owner_of(number) for number in range(count)}
    assert len(documents_of(3, count)) == 1000


def test_the_table() -> None:
    head, start, delete = table("documents", MEASURED).splitlines()
    assert head.split() == ["documents", "0", "1000", "10000"]
    assert start.split() == ["start,", "CPU", "s", "1", "1.25", "1.5"]
    assert delete.split()[-2:] == ["2", "8"]


def test_the_picture() -> None:
    root = ElementTree.fromstring(draw(curves_of("documents", MEASURED), "a & b"))
    start, delete = root.findall(f"{SVG}g")
    assert [text.text for text in root.findall(f"{SVG}text")] == ["a & b"]
    assert start.findtext(f"{SVG}text") == "start, CPU s"
    points = [tuple(map(float, point.split(","))) for point in _line(delete).split()]
    assert len(points) == 2
    assert points[0][0] < points[1][0]
    assert points[0][1] > points[1][1]
    assert points[1][1] == 34  # the highest value is at the top of its axis


def _line(chart: ElementTree.Element) -> str:
    line = chart.find(f"{SVG}polyline")
    assert line is not None
    return line.attrib["points"]


def test_the_picture_in_the_docs_has_every_curve() -> None:
    charts = ElementTree.parse(PICTURE).getroot().findall(f"{SVG}g")
    names = {chart.findtext(f"{SVG}text") for chart in charts}
    assert {
        "delete 100 documents, CPU ms",
        "request, first, CPU ms",
        "commands send, CPU s",
        "backup, memory, MB",
    } <= names
    assert all(len(_line(chart).split()) >= 6 for chart in charts)
