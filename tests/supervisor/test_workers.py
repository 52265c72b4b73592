"""Several workers and their supervisor as processes: what happens when one of them ends, hangs or can't begin."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio

from tests.e2e.agents import stored
from tests.e2e.processes import Files, command_line, start_daemon, tool
from tests.supervisor.nodes import ended, is_alive, kill, parked, serving, status, under_load
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.daemon.bound_sockets import StartError
from wazuh_comms_trio.daemon.exit_status import exceptions_of
from wazuh_comms_trio.daemon.supervisor.supervisor import supervise
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


async def poll_into(agent: AgentClient, replies: list[Reply]) -> None:
    replies.append(await agent.poll())


async def test_every_worker_serves_and_all_is_in_the_status(make_files: MakeFiles) -> None:
    files = make_files(workers=3)
    async with start_daemon(files) as daemon:
        pids = await serving(files, 3)
        assert daemon.process.pid not in pids
        agents = await daemon.add_agents(12)
        for agent in agents:
            assert (await agent.authenticate()).status == 200
        replies: list[Reply] = []
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll_into, agent, replies)
            await parked(files, 12)
            found = await status(files)
            assert found["generation"] == 1
            assert found["reload"] is True
            for worker in found["workers"]:
                assert worker["last_error"] is None
                assert worker["lag"] >= 0
                assert worker["connections"] >= worker["parked"]
                assert worker["heard"] < 3
            shown = await tool(files, "status")
            assert shown["problems"] == []
            began = trio.current_time()
            daemon.process.send_signal(signal.SIGTERM)
            with trio.fail_after(5):
                await daemon.process.wait()
        assert daemon.process.returncode == 0
        assert trio.current_time() - began < 3
        assert [reply.status for reply in replies] == [408] * 12
        assert not any(map(is_alive, pids))
        assert not files.socket.exists()
        with pytest.raises(ExchangeFailed):
            await agents[0].alive()


async def test_killed_workers_are_replaced_and_nothing_acknowledged_is_lost(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        async with under_load(daemon) as load:
            await load.more(20)
            for pid in pids:
                kill(pid)
                await load.more(20)
                new = await serving(files, 2, but=pid)
                assert pid not in new
            await load.more(20)
        assert len(load.failed) <= 8  # what each agent had under way when a worker died
        assert await daemon.wait_for_line("ERROR .*worker .* ended with SIGKILL")
    numbers, documents = await stored(files)
    assert load.acknowledged <= set(documents)
    assert load.stateless <= set(numbers)


async def test_the_supervisors_death_takes_its_workers_with_it(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        async with under_load(daemon) as load:
            await load.more(20)
            daemon.process.kill()
            await daemon.process.wait()
            with trio.fail_after(5):
                for pid in pids:
                    await ended(pid)
        acknowledged, stateless = set(load.acknowledged), set(load.stateless)
    numbers, documents = await stored(files)
    assert acknowledged <= set(documents)
    assert stateless <= set(numbers)
    async with start_daemon(files) as daemon:  # and nothing is in its way
        await serving(files, 2)


async def test_a_worker_that_hangs_is_killed_and_replaced(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        kill(pids[0], signal.SIGSTOP)
        with trio.fail_after(12):
            await daemon.wait_for_line("ERROR .*worker .* hangs")
            assert pids[0] not in await serving(files, 2, but=pids[0])
        assert not is_alive(pids[0])
        (agent,) = await daemon.add_agents(1)
        assert (await agent.authenticate()).status == 200


async def test_a_stopped_worker_goes_with_its_supervisor(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        kill(pids[0], signal.SIGSTOP)
        daemon.process.kill()
        await daemon.process.wait()
        with trio.fail_after(5):
            for pid in pids:
                await ended(pid)


async def test_a_hung_worker_doesnt_keep_the_daemon_from_ending(make_files: MakeFiles) -> None:
    files = make_files(shutdown={"grace": 1})
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        kill(pids[0], signal.SIGSTOP)
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.wait_for_line("SIGTERM: stopping")
        daemon.process.send_signal(signal.SIGINT)
        with trio.fail_after(6):
            assert await daemon.process.wait() == 0
        assert not any(map(is_alive, pids))


async def test_a_second_signal_hurries(make_files: MakeFiles) -> None:
    files = make_files(shutdown={"grace": 60, "spread": 60})
    async with start_daemon(files, expect_errors=True) as daemon:
        agents = await daemon.add_agents(3)
        for agent in agents:
            await agent.authenticate()
        replies: list[Reply] = []
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll_into, agent, replies)
            await parked(files, 3)
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.wait_for_line("SIGTERM: stopping")
            daemon.process.send_signal(signal.SIGTERM)
            with trio.fail_after(5):
                assert await daemon.process.wait() == 0
        assert [reply.status for reply in replies] == [408] * 3


async def test_a_term_of_one_worker_is_a_new_worker(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        async with under_load(daemon) as load:
            await load.more(10)
            kill(pids[0], signal.SIGTERM)
            await load.more(10)
            await serving(files, 2, but=pids[0])
        assert load.failed == []


async def fails_to_start(files: Files) -> tuple[int, str]:
    done = await trio.run_process(command_line(files), capture_stderr=True, check=False)
    log = done.stderr.decode()
    assert "Traceback" not in log
    return done.returncode, log


@pytest.mark.expects_errors
async def test_a_worker_that_cant_start_is_one_clear_message(
    make_files: MakeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wazuh_comms_trio.daemon.supervisor.generation.FAILED_STARTS", 2)
    files = make_files()
    files.state.write_text("not a folder")
    with pytest.raises(ExceptionGroup) as caught:
        await supervise(load_config(files.config))
    (reason,) = exceptions_of(caught.value)
    assert isinstance(reason, StartError)
    assert str(reason).startswith(f"a worker can't start (2 times): {files.state}: ")


async def test_a_configuration_that_is_wrong_is_78(make_files: MakeFiles) -> None:
    files = make_files(workers=0)
    code, log = await fails_to_start(files)
    assert code == 78
    assert "workers" in log
