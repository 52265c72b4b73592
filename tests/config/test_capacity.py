"""What a machine can hold of a configuration, and what follows from the number of agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from wazuh_comms_trio.config.capacity import LEAST_BUDGET, LEAST_EVENT, budget_bytes, judge, largest_event_bytes
from wazuh_comms_trio.config.limits.models import Limits
from wazuh_comms_trio.config.models import CommunicationsApi, Ssl
from wazuh_comms_trio.foundation.resources import memory_limit

MIB = 1024 * 1024


def api(*, workers: int = 1, agents: int = 0, body_bytes: int = 100 * MIB) -> CommunicationsApi:
    limits = Limits(agents=agents, body_bytes=body_bytes)
    return CommunicationsApi(ssl=Ssl(Path("key"), Path("cert")), workers=workers, limits=limits)


class TestBudget:
    def test_it_follows_from_the_memory_limit(self) -> None:
        assert budget_bytes(api(), 512 * MIB) == 272 * MIB
        assert budget_bytes(api(workers=4), 1024 * MIB) == (768 - 4 * 112 - 48) * MIB // 4
        assert budget_bytes(api(), 64 * 1024 * MIB) == 512 * MIB  # more is more than some seconds' work

    def test_never_less_than_one_body_needs(self) -> None:
        assert budget_bytes(api(), 64 * MIB) == LEAST_BUDGET


class TestLargestEvent:
    def test_it_fits_in_several_times(self) -> None:
        assert largest_event_bytes(api(), 512 * MIB) == (272 - 64) * MIB // 5
        assert largest_event_bytes(api(workers=2), 1024 * MIB) == ((768 - 2 * 112 - 48) // 2 - 64) * MIB // 5
        assert largest_event_bytes(api(), 128 * MIB) == LEAST_EVENT

    def test_it_is_no_larger_than_a_body(self) -> None:
        assert largest_event_bytes(api(workers=4), 4096 * MIB) == 100 * MIB  # as the unit has it
        assert largest_event_bytes(api(body_bytes=MIB), 512 * MIB) == MIB


class TestVerdict:
    def test_a_small_machine_holds_a_legal_body(self) -> None:
        assert judge(api(), memory=256 * MIB, descriptors=1024).problem is None

    @pytest.mark.parametrize("workers", [1, 4])
    def test_a_limit_that_cannot_hold_one_says_what_is_needed(self, workers: int) -> None:
        verdict = judge(api(workers=workers), memory=100 * MIB, descriptors=1024)
        assert verdict.problem is not None
        needed = int(verdict.problem.split(": ")[1].split(" MiB")[0])
        assert judge(api(workers=workers), memory=needed * MIB, descriptors=1024).problem is None
        assert judge(api(workers=workers), memory=(needed - 2) * MIB, descriptors=1024).problem is not None

    def test_what_follows_and_what_does_not_fit(self) -> None:
        verdict = judge(api(workers=2, agents=10_000), memory=1024 * MIB, descriptors=1024)
        assert "limits.parked_polls: 10100" in verdict.follows
        assert any("1024 files" in text for text in verdict.misfits)
        assert any("1024 MiB" in text for text in verdict.misfits)
        fitting = judge(api(workers=2, agents=10_000), memory=16 * 1024 * MIB, descriptors=262_144)
        assert fitting.misfits == ()


class TestMemoryLimit:
    def group(self, tmp_path: Path, own: str, files: dict[str, str]) -> int:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)
        return memory_limit(tmp_path / "groups", tmp_path / "own")

    def test_version_2_and_the_groups_around(self, tmp_path: Path) -> None:
        files = {"a/b/memory.max": "max\n", "a/memory.max": f"{300 * MIB}\n", "memory.max": f"{400 * MIB}\n"}
        assert self.group(tmp_path, "0::/a/b\n", files) == 300 * MIB

    def test_version_1(self, tmp_path: Path) -> None:
        files = {
            "memory/a/memory.limit_in_bytes": f"{200 * MIB}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
        assert self.group(tmp_path, "4:cpu,memory:/a\n0::/\n", files) == 200 * MIB

    def test_a_container_sees_its_own_group_as_the_root(self, tmp_path: Path) -> None:
        assert self.group(tmp_path, "0::/../../x\n", {"memory.max": f"{100 * MIB}"}) == 100 * MIB

    def test_without_groups_the_machine_is_the_limit(self, tmp_path: Path) -> None:
        assert memory_limit(tmp_path, tmp_path / "missing") > 100 * MIB
