"""What is measured at each size: the stores alone, in this process, and a daemon and the tool on the same state."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import mean, median
from uuid import UUID

import trio

from bench.daemon import KEY, write_config
from bench.processes import Payload, Server, resident_bytes, run_round, start_daemon
from bench.service import with_tokens
from bench.workloads import Agent, logins, polls, stateful
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, DocumentOperation, Target
from wazuh_comms_trio.backends.interfaces import Agent as StoredAgent
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key

Figures = dict[str, float]
"""By the curve's name."""

INDEX = "wazuh-states-inventory-packages"
#: Ten agents send a thousand documents each, fifty at a time in turn; then come the next ten.
PER_AGENT, TOGETHER, AT_A_TIME = 1000, 50, 10
BODY = (
    b'{"agent":{"id":"%s","name":"a1","type":"Endpoint","version":"6.0.0","groups":[],"host":{"architecture":"x86_64",'
    b'"hostname":"h1","ip":["10.0.0.5"],"os":{"name":"Ubuntu","type":"Linux","version":"24.04"}}},"@timestamp":'
    b'"2025-03-11T19:12:36.629Z","package":{"name":"zlib1g","version":"1:1.3.dfsg-3.1ubuntu2","architecture":"amd64",'
    b'"description":"compression library - runtime","size":163840,"type":"deb"}}'
)
#: Agents that are asked about, of all; requests of a kind.
SAMPLE = 300


def uuid_of(number: int) -> str:
    return str(UUID(int=number, version=4))


class Site:
    """A node's folder. ``agents`` and ``commands``: how many there are; what an agent is called follows from its
    number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = write_config(folder)
        self.agents = self.documents = self.commands = 0
        self.chance = random.Random(11)
        self._hash = hash_key(KEY)
        self._served = 0

    @asynccontextmanager
    async def stores(self) -> AsyncIterator[SqliteStores]:
        async with open_sqlite(self.folder / "state") as stores:
            yield stores

    @contextmanager
    def daemon(self) -> Iterator[Server]:
        self._served += 1
        with start_daemon(self.config, self.folder / f"daemon-{self._served}.log") as server:
            yield server

    async def grow_agents(self, count: int) -> None:
        async with self.stores() as stores:
            while self.agents < count:
                end = min(count, self.agents + 1000)
                async with trio.open_nursery() as nursery:
                    for number in range(self.agents, end):
                        agent = StoredAgent(uuid_of(number), f"a{number}", self._hash)
                        nursery.start_soon(stores.agents.add, agent)
                self.agents = end

    async def grow_documents(self, count: int) -> None:
        async with self.stores() as stores:
            while self.documents < count:
                end = min(count, self.documents + 5000)
                await stores.events.bulk([create(number) for number in range(self.documents, end)])
                self.documents = end

    async def grow_commands(self, count: int) -> None:
        """Of every ten one is pending, for an agent that is away."""
        async with self.stores() as stores:
            while self.commands < count:
                end = min(count, self.commands + 1000)
                added = [
                    Command(
                        f"c{number}", Target("agent", uuid_of(1000 + number % 1000)), Action("restart"), timeout=1e6
                    )
                    for number in range(self.commands, end)
                ]
                await stores.commands.add(added)
                sent = [command.document_id for number, command in enumerate(added) if number % 10]
                await stores.commands.mark_sent(sent)
                self.commands = end


def owner_of(number: int) -> int:
    return number // (PER_AGENT * AT_A_TIME) * AT_A_TIME + number // TOGETHER % AT_A_TIME


def documents_of(agent: int, count: int) -> list[int]:
    """The numbers of its documents, of the first ``count`` of all."""
    first = agent // AT_A_TIME * AT_A_TIME * PER_AGENT + agent % AT_A_TIME * TOGETHER
    starts = range(first, first + AT_A_TIME * PER_AGENT, AT_A_TIME * TOGETHER)
    return [start + position for start in starts for position in range(TOGETHER) if start + position < count]


def create(number: int) -> DocumentOperation:
    uuid = uuid_of(owner_of(number))
    return DocumentOperation("create", INDEX, name_of(number, uuid), BODY % uuid.encode(), plain=True, own=True)


def name_of(number: int, uuid: str) -> str:
    return f"{uuid}_{hashlib.sha1(str(number).encode()).hexdigest()}"


# --- documents ---


async def measure_writes(site: Site, agents: int, rounds: int) -> Figures:
    """A hundred documents of one agent are deleted, and made again: ms of CPU of this process and its threads."""
    figures: dict[str, list[float]] = {"delete 100 documents": [], "create 100 documents": []}
    async with site.stores() as stores:
        for turn in range(2 * rounds):
            agent = site.chance.randrange(agents)
            numbers = documents_of(agent, site.documents)
            chosen = site.chance.sample(numbers, min(100, len(numbers)))
            made = [create(number) for number in chosen]
            gone = [DocumentOperation("delete", INDEX, each.document_id, own=True) for each in made]
            for name, operations, status in (("delete", gone, 200), ("create", made, 201)):
                began = time.process_time()
                results = await stores.events.bulk(operations)
                took = time.process_time() - began
                if {result.status for result in results} - {status}:
                    raise SystemExit(f"{name}: {results[0]}")
                if turn >= rounds // 2:  # before that, memory fills
                    figures[f"{name} 100 documents"].append(took * 1000 * 100 / len(operations))
    return {name: mean(values) for name, values in figures.items()}


def measure_documents(site: Site, count: int, rounds: int) -> Figures:
    """With ``count`` documents of as many agents as that is for."""
    agents = max(AT_A_TIME, count // PER_AGENT)
    trio.run(site.grow_agents, max(agents, SAMPLE))
    trio.run(site.grow_documents, count)
    figures: Figures = {}
    if count:
        figures |= trio.run(measure_writes, site, agents, rounds)
    figures |= measure_start(site)
    with site.daemon() as server:
        sample = with_tokens(site.folder, [Agent(uuid_of(number), KEY) for number in range(SAMPLE)])
        run_round(server, stateful(10)(sample, 50), 1, 200)
        figures["request of 10 events"] = median(
            run_round(server, stateful(10)(sample, SAMPLE), 1, 200).cpu_ms for _ in range(3)
        )
    return figures | measure_tool(site, "backup", lambda: ["backup", str(fresh(site.folder / "a.backup"))])


def fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


def measure_start(site: Site) -> Figures:
    """The daemon's seconds of CPU until it serves, and its memory then."""
    cpu, sizes = [], []
    for _ in range(3):
        with site.daemon() as server:
            cpu.append(server.cpu)
            sizes.append(resident_bytes(server.process.pid) / 1e6)
    return {"start": median(cpu), "start, memory": median(sizes)}


def measure_tool(site: Site, name: str, command: Callable[[], Sequence[str]], rounds: int = 3) -> Figures:
    """Seconds of CPU, and the most memory."""
    cpu, sizes = [], []
    program = Path(sys.executable).parent / "wazuh-comms"
    for _ in range(rounds):
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [str(program), *command(), "--config", str(site.config)], stdout=output, stderr=subprocess.STDOUT
            )
            most = follow_memory(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                raise SystemExit(f"wazuh-comms {name}: {process.returncode} {output.read(2000)!r}")
        cpu.append(usage.ru_utime + usage.ru_stime)
        sizes.append(most / 1e6)
    return {name: median(cpu), f"{name}, memory": median(sizes)}


def follow_memory(pid: int) -> int:
    """The most bytes that a process had resident, when it has ended. (``ru_maxrss`` counts its parent's, too.)"""
    most = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        most = max(most, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    return most


# --- agents ---


def measure_agents(site: Site, count: int) -> Figures:
    """Of an agent that the daemon hasn't seen since it started, and of one that it has. In between others come, so
    that nothing is fresh in the processor's caches."""
    trio.run(site.grow_agents, count)
    sample = [Agent(uuid_of(number), KEY) for number in site.chance.sample(range(count), min(count, SAMPLE))]
    sample = with_tokens(site.folder, sample)
    turns = -(-SAMPLE // len(sample))
    figures = measure_start(site)
    with site.daemon() as server:
        run_round(server, logins(sample[:30], 30), 1, 200)  # first ones are hashed for 10 ms
        figures["log in again"] = cost(server, logins(sample[:30], SAMPLE))
        figures["request, first"] = cost(server, stateful(1)(sample, len(sample)), rounds=1)
        figures["request, again"] = cost(server, stateful(1)(sample, len(sample) * turns))
        trio.run(give_commands, site, [agent.uuid for agent in sample])
        figures["poll with a command"] = cost(server, polls(sample, len(sample)), rounds=1)
    return figures | measure_tool(site, "agents list", lambda: ["agents", "list"])


def cost(server: Server, payloads: Sequence[Payload], rounds: int = 3) -> float:
    return median(run_round(server, payloads, 1, 200).cpu_ms for _ in range(rounds))


async def give_commands(site: Site, agents: Sequence[str]) -> None:
    async with site.stores() as stores:
        turn = time.time_ns()
        await stores.commands.add(
            [Command(f"{turn}-{uuid}", Target("agent", uuid), Action("restart"), timeout=3600) for uuid in agents]
        )


# --- commands ---


def measure_commands(site: Site, count: int) -> Figures:
    """Those who poll aren't those whose commands lie there."""
    trio.run(site.grow_agents, 2000)
    trio.run(site.grow_commands, count)
    figures = measure_start(site)
    figures |= measure_tool(site, "commands list", lambda: ["commands", "list"])
    figures |= measure_tool(site, "commands list, all", lambda: ["commands", "list", "--limit", str(10**7)], rounds=1)
    figures |= measure_tool(
        site, "commands send", lambda: ["commands", "send", "--agent", uuid_of(site.chance.randrange(1000)), "restart"]
    )
    sample = [Agent(uuid_of(number), KEY) for number in site.chance.sample(range(1000), SAMPLE)]
    sample = with_tokens(site.folder, sample)
    with site.daemon() as server:
        trio.run(give_commands, site, [agent.uuid for agent in sample])
        figures["poll with a command"] = cost(server, polls(sample, SAMPLE), rounds=1)
    return figures
