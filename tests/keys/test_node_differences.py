"""What differs between nodes: group files, clocks, and the indexer's disks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.indexer.bench import fake, stores_of, wall_clock
from tests.indexer.cluster import shared_node
from tests.indexer.harness import settings
from tests.keys.test_node_watch import Recorded, watch
from wazuh_comms_trio.backends.files.group_digests import GroupDigests
from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
from wazuh_comms_trio.backends.opensearch.cluster_state import (
    Disk,
    IndexerState,
    Watermarks,
    about_disks,
    look_at_indexer,
    parse_watermark,
)
from wazuh_comms_trio.backends.opensearch.node_differences import about_clocks, about_files, shares_of
from wazuh_comms_trio.backends.opensearch.node_registry import KnownNode

NOW = 1_750_000_000.0
GB = 1024**3


def node(name: str = "two", **said: Any) -> KnownNode:
    return KnownNode(**{"id": name, "name": name, "key": "a", "accepts": ["a"], "seen": NOW, **said})


class TestFiles:
    def test_digests_follow_the_files(self, tmp_path: Path) -> None:
        digests = GroupDigests(tmp_path)
        assert digests.read() == {}
        (tmp_path / "a.yml").write_text("one")
        (tmp_path / "b.conf").write_text("one")
        (tmp_path / "notes.txt").write_text("one")
        (tmp_path / "folder.yml").mkdir()
        (tmp_path / "dead.yml").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe.yml")
        first = digests.read()
        assert set(first) == {"a.yml", "b.conf"}
        assert first["a.yml"] == first["b.conf"]
        (tmp_path / "a.yml").write_text("two")
        os.utime(tmp_path / "a.yml", (NOW, NOW))  # of the same size, and with a time that was set
        second = digests.read()
        assert second["a.yml"] != first["a.yml"]
        assert second["b.conf"] == first["b.conf"]
        (tmp_path / "a.yml").unlink()
        assert set(digests.read()) == {"b.conf"}

    def test_a_folder_that_isnt_there(self, tmp_path: Path) -> None:
        assert GroupDigests(tmp_path / "none").read() == {}

    def test_of_ten_thousand_groups_the_one_that_differs_is_among_few(self) -> None:
        ours = {f"group{number}.yml": f"{number:064x}" for number in range(10_000)}
        theirs = {**ours, "group77.yml": "f" * 64}
        assert len(json.dumps(shares_of(theirs))) < 6000
        (sentence,) = about_files(ours, [node(files=shares_of(theirs))]).values()
        assert "the group files of the node two differ" in sentence
        assert "more; agents get" in sentence
        assert about_files(ours, [node(files=shares_of(dict(reversed(ours.items()))))]) == {}

    def test_which_file_it_is(self) -> None:
        ours = {"default.yml": "1", "web.yml": "2"}
        (changed,) = about_files(ours, [node(files=shares_of({**ours, "web.yml": "3"}))]).values()
        assert "differ from this node's: in web.yml; agents" in changed
        (missing,) = about_files(ours, [node(files=shares_of({**ours, "db.yml": "3"}))]).values()
        assert "in some that this node doesn't have" in missing
        assert about_files(ours, [node(files=None)]) == {}  # of an earlier version


class TestClocks:
    @pytest.mark.parametrize(
        ("ahead", "theirs", "expected"),
        [
            (0.4, -3.0, []),
            (7.0, 7.1, ["this machine's clock is 7 s behind the indexer's"]),
            (0.0, -40.0, ["the clock of the node two is 40 s ahead of this machine's"]),
            (0.0, 40.0, ["the clock of the node two is 40 s behind this machine's"]),
            (None, None, []),
        ],
    )
    def test_by_the_indexers(self, ahead: float | None, theirs: float | None, expected: list[str]) -> None:
        found = list(about_clocks(NOW, ahead, [node(clock=theirs)]).values())
        assert [sentence.partition(":")[0] for sentence in found] == expected

    def test_without_the_right_to_see_the_indexers(self) -> None:
        (sentence,) = about_clocks(NOW, None, [node(seen=NOW + 12)]).values()
        assert "two is 12 s ahead of" in sentence
        assert about_clocks(NOW, None, [node(seen=NOW - 200)]) == {}


class TestDisks:
    @pytest.mark.parametrize(
        ("text", "least"),
        [
            ("85%", 15.0),
            ("0.9", 10.0),
            ("10gb", 10.0 * GB),
            ("500mb", 500 * 1024**2),
            ("20b", 20.0),
            ("1.5tb", 1536 * GB),
        ],
    )
    def test_watermarks(self, text: str, least: float) -> None:
        assert (rule := parse_watermark(text)) is not None
        assert rule(100) == pytest.approx(least)

    @pytest.mark.parametrize("text", [None, 3, "", "much", "-1", "120%", "1.5", "10 parsecs"])
    def test_what_is_no_watermark(self, text: object) -> None:
        assert parse_watermark(text) is None

    @pytest.mark.parametrize(
        ("free", "expected"), [(16, None), (15, "85 % full: when it is above"), (4, "96 % full: it is above its flood")]
    )
    def test_from_the_low_one_on(self, free: int, expected: str | None) -> None:
        marks = Watermarks(parse_watermark("85%"), parse_watermark("95%"))
        found = about_disks(IndexerState(0.0, [Disk("n1", free * GB, 100 * GB), Disk("n2", 99 * GB, 100 * GB)], marks))
        assert len(found) == (0 if expected is None else 1)
        assert all(str(expected) in sentence for sentence in found.values())

    def test_a_cluster_that_minds_no_disk(self) -> None:
        assert about_disks(IndexerState(0.0, [Disk("n1", 1, 100 * GB)], Watermarks())) == {}


STATS = {
    "nodes": {"x": {"timestamp": 0, "name": "n1", "fs": {"total": {"total_in_bytes": 100, "available_in_bytes": 7}}}}
}
MARKS = {"defaults": {"cluster.routing.allocation.disk.watermark.low": "85%"}}


async def test_a_node_tells_and_is_told(autojump_clock: MockClock) -> None:
    """Files that differ are a warning at the second look; the clock and the disk at the first."""
    async with fake() as indexer, stores_of(indexer) as stores:

        def answer(method: str, path: str) -> tuple[int, Any] | None:
            if path.startswith("/_nodes"):
                STATS["nodes"]["x"]["timestamp"] = round((wall_clock() + 9) * 1000)
                return 200, STATS
            return (200, MARKS) if path == "/_cluster/settings" else None

        indexer.faults.whole = answer
        one, two = Recorded("one", ["a"]), Recorded("two", ["a"])

        async def files_of_one() -> dict[str, str]:
            return {"web.yml": "1"}

        one.node.files = files_of_one
        await watch(stores.client, two).look()
        here = watch(stores.client, one)
        await here.look()
        assert {kind for kind, found in one.node.warnings.items() if found} == {"clock", "indexer_disk"}
        assert "9 s behind the indexer's" in one.node.warnings["clock"]["this node"]
        assert "n1 is 93 % full" in one.node.warnings["indexer_disk"]["n1"]
        await here.look()
        assert "in web.yml" in one.node.warnings["files"]["two"]


@pytest.mark.parametrize("status", [403, 500, 200])
async def test_an_indexer_that_doesnt_say_costs_nothing_else(autojump_clock: MockClock, status: int) -> None:
    async with fake() as indexer, stores_of(indexer) as stores:
        asked = []

        def answer(method: str, path: str) -> tuple[int, Any] | None:
            if not path.startswith("/_nodes"):
                return None
            asked.append(path)
            return status, {"error": {"type": "security_exception", "reason": "no"}, "nodes": 3}

        indexer.faults.whole = answer
        one, two = Recorded("one", ["a"]), Recorded("two", ["b"])
        await watch(stores.client, two).look()
        asked.clear()
        here = watch(stores.client, one)
        await here.look()
        await here.look()
        assert one.node.warnings["keys"]
        assert one.node.warnings["clock"] == one.node.warnings["indexer_disk"] == {}
        assert len(asked) == (1 if status == 403 else 2)  # without the right it isn't asked again


@pytest.mark.indexer
@pytest.mark.real_clock
async def test_a_real_one_says_both() -> None:
    async with OpenSearchClient(settings(shared_node().port)) as client:
        state = await look_at_indexer(client, time.time)
    assert state is not None
    assert state.ahead == pytest.approx(0, abs=5)
    assert [disk.size > disk.free > 0 for disk in state.disks] == [True]
    assert state.watermarks.low is not None
    assert state.watermarks.flood is not None
    assert state.watermarks.low(100) == pytest.approx(15)
