"""Figures of a run, and how they are told: percentiles, slices of time, page, document, picture, progress."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil
from xml.etree import ElementTree

import pytest

from wazuh_comms_trio.cli.fleet.plot import draw
from wazuh_comms_trio.cli.fleet.report import problems, progress_line, report_document, report_lines
from wazuh_comms_trio.cli.fleet.run import Result, Stage
from wazuh_comms_trio.cli.fleet.tally import Histogram, Kind, Slice, Tally, Timeline


def test_percentiles_are_within_two_percent() -> None:
    rng = random.Random(3)
    values = sorted(rng.lognormvariate(-5, 1.5) for _ in range(5000))
    histogram, halves = Histogram(), (Histogram(), Histogram())
    for number, value in enumerate(values):
        histogram.add(value)
        halves[number % 2].add(value)
    halves[0].merge(halves[1])
    for share in (0.01, 0.5, 0.95, 0.99, 0.999, 1.0):
        exact = values[ceil(share * len(values)) - 1]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.03)
        assert halves[0].quantile(share) == histogram.quantile(share)
    assert histogram.longest == values[-1]


def test_percentiles_of_nothing_and_of_next_to_nothing() -> None:
    assert Histogram().quantile(0.5) is None
    tiny = Histogram()
    tiny.add(0.0)
    assert tiny.quantile(0.99) == 0.0
    one = Histogram()
    one.add(0.004)
    assert one.quantile(0.01) == one.quantile(1.0) == 0.004


def test_long_runs_keep_a_bounded_number_of_slices_and_lose_nothing() -> None:
    timeline = Timeline()
    for second in range(10_000):
        timeline.done(0.001 * (second % 7))
        if second % 3 == 0:
            timeline.failed()
        timeline.close_slice(float(second), 1.0, second)
    assert 600 <= len(timeline.slices) <= 1200
    assert sum(each.requests for each in timeline.slices) == 10_000 + 3334
    assert sum(each.errors for each in timeline.slices) == 3334
    assert sum(each.length for each in timeline.slices) == pytest.approx(10_000)
    assert [each.start for each in timeline.slices] == sorted(each.start for each in timeline.slices)
    assert timeline.slices[-1].parked == 9999


def test_errors_of_many_kinds_are_counted_together_beyond_twenty() -> None:
    tally = Tally()
    for number in range(100):
        tally.failed(Kind.FILE, f"cause {number}")
    tally.failed(Kind.FILE, "cause 3")
    errors = tally.kinds[Kind.FILE].errors
    assert (len(errors), errors["others"], errors["cause 3"], tally.errors) == (21, 80, 2, 101)


def result_of(fill: Callable[[Tally], None], **changes: object) -> Result:
    rest = Tally()
    fill(rest)
    values: dict[str, object] = {
        "start": Tally(),
        "rest": rest,
        "start_seconds": 10.0,
        "rest_seconds": 60.0,
        "cpu": 7.0,
        "unanswered": (0, 0.0),
        "parked": 100,
        "logged_in": 100,
        "slices": (),
    }
    return Result(**(values | changes))  # type: ignore[arg-type]


def served(tally: Tally) -> None:
    for _ in range(600):
        tally.done(Kind.STATELESS, 204, 0.005)
        tally.late.add(0.0005)
    for _ in range(50):
        tally.done(Kind.POLL, 408, 300.0)


def test_a_good_run() -> None:
    result = result_of(served)
    page = list(report_lines(result, 100))
    assert problems(result) == []
    assert page[0] == "100 agents: 10 s to start, 60 s at rest"
    assert "stateless                   600    10.0       0      5.0     5.0     5.0" in page
    assert "poll                         50     0.8       0        -       -       -" in page
    assert "100 polls parked at the end; 50 ended at rest, 0 commands came with them." in page
    assert max(map(len, page)) <= 80
    document = report_document(result, 100)
    assert document["rest"]["latency_ms"]["p99"] == pytest.approx(5.0)
    assert document["rest"]["kinds"]["stateless"]["served"] == 600
    assert document["rest"]["requests"] == 650
    assert document["client"] == {
        "late_ms": {"p50": 0.5, "p95": 0.5, "p99": 0.5, "p99.9": 0.5, "max": 0.5},
        "cpu_share": 0.1,
    }


@pytest.mark.parametrize(
    ("fill", "changes", "said"),
    [
        (lambda tally: tally.failed(Kind.FILE, "status 503"), {}, "1 of 651 requests failed at rest"),
        (lambda tally: tally.done(Kind.FILE, 404, 0.01), {}, "doesn't have the file that was asked for: 1 x 404"),
        (
            lambda tally: None,
            {"unanswered": (7, 12.0)},
            "7 requests were still unanswered at the end",
        ),
        (
            lambda tally: [tally.done(Kind.POLL, 408, 2.0) for _ in range(60)],
            {},
            "110 polls were ended by the node, half of them within 2 s: its `limits` are for fewer agents",
        ),
        (lambda tally: None, {"outstanding": ("herd",)}, "the mix's herd didn't come: it needs a longer --duration"),
        (lambda tally: None, {"cpu": 69.0}, "this client was late or busy itself"),
        (lambda tally: [tally.late.add(0.2) for _ in range(20)], {}, "this client was late or busy itself"),
    ],
)
def test_what_spoils_the_figures_is_said(fill: Callable[[Tally], None], changes: dict[str, object], said: str) -> None:
    def both(tally: Tally) -> None:
        served(tally)
        fill(tally)

    result = result_of(both, **changes)
    (only,) = problems(result)
    assert said in only
    assert f"! {only}" in list(report_lines(result, 100))


def test_progress_fits_whatever_the_terminal() -> None:
    tally = Tally()
    served(tally)
    last = Slice(5.0, 1.0, 371, 0, 0.004, 0.02, 0.001, 3000)
    for at_rest, whole in ((True, 180.0), (True, None), (False, 60.0), (False, 0.0)):
        stage = Stage(at_rest, 83.0, whole, last, tally, 3000, 2985)
        for width in (10, 40, 80, 120):
            line = progress_line(stage, width)
            assert 0 < len(line) < width
        assert "371/s" in progress_line(stage, 80)
        assert "2985 of 3000 logged in" in progress_line(stage, 160)


def test_the_picture_is_xml_and_stays_within_its_frame() -> None:
    slices = [Slice(float(n), 1.0, 100 + n, n % 2, None if n == 5 else 0.001 * n, 0.5, 0.0, 10 * n) for n in range(30)]
    for some in (slices, slices[:1], []):
        root = ElementTree.fromstring(draw(some, 'a <title> & "more"', 10.0))
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert 'a <title> & "more"' in texts
        assert {"requests a second", "polls parked", "p99"} <= set(texts)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height
