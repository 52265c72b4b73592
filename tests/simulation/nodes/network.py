"""The network between agents and nodes: connections that meet a fate, a balancer, and listeners that workers share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import trio

from tests.simulation.plans.faults import Fault
from wazuh_comms_trio.http.server.streams.socket_stream import CALLS_PER_YIELD
from wazuh_comms_trio.testing.streams import BUFFER_BYTES, RECEIVE_BYTES, MemoryStream, _Direction

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["Balancer", "Connection", "NodeListener", "SimStream", "process_stream_pair", "send_twice"]


#: Of a connection, where bodies come in small pieces: of all of a large one they would be very many.
SMALL_READS = 8
#: What a read that is split brings at most, where no more than eight times as much waits.
SPLIT_BYTES = 200
#: What a connection holds that holds little: less than many replies, and more than a refusal, which is there before all
#: of what is refused was sent.
_LITTLE = 400


class SimStream(MemoryStream):
    """One end of a connection. ``process``: whose it is, if that can die or hang. ``served``: it takes turns as our
    server's ``SocketStream`` does, on each eighth call and where it waits; else as trio's, on each call."""

    _numbers = count()

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.number = next(SimStream._numbers)
        self.process: Process | None = None
        self.connection: Connection | None = None
        self.is_link = False  # to the hub, which outlives its worker
        self.served = False
        self._left = CALLS_PER_YIELD
        #: No read goes beyond so many bytes from now on, where two answers meet.
        self.boundary: int | None = None

    @property
    def has_news(self) -> bool:
        """Whether a read wouldn't wait."""
        incoming = self._incoming
        return bool(incoming.delivered) or incoming.reset or incoming.ended

    def belongs_to(self, process: Process) -> None:
        self.process = process
        process.streams.add(self)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.process is not None:
            await self.process.connected()
        if self.connection is not None:
            await self.connection.pass_on(self, bytes(data))
        else:
            await self._send(data)

    async def send_through(self, data: bytes) -> None:
        try:
            await self._send(data)
        except trio.ClosedResourceError:
            if self.connection is None or self is self.connection.server:
                raise
            raise trio.BrokenResourceError("the agent has left") from None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.process is not None:
            await self.process.connected()
        if (connection := self.connection) is not None:
            max_bytes = await connection.read_size(self, max_bytes)
        if not self.has_news:  # it takes its turn while it waits
            self._left = CALLS_PER_YIELD
            await trio.lowlevel.checkpoint_if_cancelled()
        elif self.served:
            await self._yield_at_times()
        else:
            await trio.lowlevel.checkpoint()
        try:
            data = await self._take(RECEIVE_BYTES if max_bytes is None else max_bytes)
        except trio.ClosedResourceError:
            if connection is None or self is connection.server:
                raise
            raise trio.BrokenResourceError("the agent has left") from None
        if self.boundary is not None:
            data, beyond = data[: self.boundary], data[self.boundary :]
            self._incoming.delivered[:0] = beyond
            self.boundary = self.boundary - len(data) or None
        if self.process is not None:
            await self.process.connected()
        return data

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if self.served:
            await self._yield_at_times()
            await self._put(data)
        else:
            await super().send_all(data)

    async def _yield_at_times(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._left = CALLS_PER_YIELD
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """At once, as both ends' sockets are closed."""
        self.close()

    def close(self) -> None:
        super().close()
        if self.process is not None:
            self.process.streams.discard(self)


def process_stream_pair() -> tuple[SimStream, SimStream]:
    up, down = _Direction(BUFFER_BYTES), _Direction(BUFFER_BYTES)
    local = ("127.0.0.1", 1)
    return SimStream(up, down, local, local), SimStream(down, up, local, local)


async def send_twice(sender: SimStream, receiver: SimStream, answer: bytes) -> None:
    """The same answer twice, the second one in a segment of its own."""
    receiver.boundary = len(receiver._incoming.delivered) + len(answer)
    await sender.send_all(answer + answer)


class Connection:
    """An agent's connection, and the fate that it meets: ``fault``, once ``amount`` bytes have gone in a
    direction."""

    def __init__(self, world: World, host: str, port: int, fault: Fault | None) -> None:
        self.world = world
        self.fault = fault
        short = world.plan.features.short_waits  # some hold so little that a reply waits for its reader
        buffer = world.rng_network.choice([_LITTLE, BUFFER_BYTES]) if short else BUFFER_BYTES
        self.directions = up, down = _Direction(buffer), _Direction(buffer)
        remote, local = (host, port), ("10.0.0.1", 27000)
        self.agent = SimStream(up, down, remote, local)
        self.server = SimStream(down, up, local, remote)
        self.agent.connection = self.server.connection = self
        self.server.served = True
        self._downwards = world.rng_network.random() < 0.5
        self._left = fault.amount if fault is not None else 0.0
        self._struck = False
        self._small_reads = SMALL_READS  # where bodies come in small pieces
        self.made = trio.current_time()
        self.taken: float | None = None  # when a worker took it
        self.place = ""  # what is asked for on it, where that is known
        self.replied = False  # some of the reply is on its way
        self.silent_since: float | None = None  # neither end hears the other

    async def pass_on(self, sender: SimStream, data: bytes) -> None:
        fault = self.fault
        self.replied = self.replied or sender is self.server
        mine = (sender is self.server) == self._downwards
        if fault is not None and fault.kind == "far" and sender is self.server:
            self.world.trace.strike("far", "reply", self.who)
            self.agent.fall_silent()
            self.world.nursery.start_soon(self._wake_later, fault.amount % 1)
        if fault is None or self._struck or not mine or fault.kind not in ("cut", "hold", "silent", "leave"):
            await sender.send_through(data)
            return
        if len(data) <= self._left:
            self._left -= len(data)
            await sender.send_through(data)
            return
        first = int(self._left)
        self._struck = True
        self.world.trace.strike(fault.kind, "reply" if self._downwards else "request", self.who)
        if first:
            await sender.send_through(data[:first])
        if fault.kind == "leave":
            self.agent.close()
            if sender is self.agent:
                raise trio.BrokenResourceError("the agent has left")
        elif fault.kind == "cut":
            self.cut()
        else:
            self._fall_silent()
            if fault.kind == "hold":
                self.world.nursery.start_soon(self._wake_later, fault.amount % 1 * 20)
        await sender.send_through(data[first:])

    async def read_size(self, reader: SimStream, max_bytes: int | None) -> int | None:
        fault = self.fault
        if fault is None and reader is self.server and self.world.plan.features.small_bodies and self._small_reads:
            self._small_reads -= 1
            return 1 + self.world.rng_network.randrange(400)
        if fault is None:
            return max_bytes
        if fault.kind == "split":
            self.world.trace.strike("split", "read", self.who)
            waiting = len(reader._incoming.delivered)  # of a large body small pieces would be very many
            return 1 + self.world.rng_network.randrange(max(SPLIT_BYTES, waiting // 8))
        if fault.kind == "slow reader" and reader is self.agent:
            self.world.trace.strike("slow reader", "agent", self.who)
            with trio.move_on_after(fault.amount % 1 * 10):
                await self.world.faults_over.wait()
        if fault.kind == "forget" and reader is self.server and not self._struck:
            self._struck = True
            self.world.nursery.start_soon(self._forget, 1 + fault.amount % 1 * 5)
        if fault.kind == "drop" and reader is self.server and not self._struck:
            self._struck = True
            self.world.nursery.start_soon(self._drop, 0.02 + fault.amount % 1 * 4)
        return max_bytes

    async def _wake_later(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.silent_since = None
        self.agent.wake_up()

    async def _forget(self, seconds: float) -> None:
        """As a NAT does with what has been silent for a while."""
        await trio.sleep(seconds)
        if not self.agent._closed and not self.server._closed:
            self.world.trace.strike("forget", "connection", self.who)
            self._fall_silent()

    def _fall_silent(self) -> None:
        self.agent.fall_silent()
        self.silent_since = trio.current_time()
        self.world.silent.append(self)

    async def _drop(self, seconds: float) -> None:
        """It is reset, while its request is under way if that takes so long."""
        await trio.sleep(seconds)
        if not self.agent._closed and not self.server._closed:
            self.world.trace.strike("drop", "connection", self.who)
            self.cut()

    def cut(self) -> None:
        """A reset, seen by both ends."""
        for direction in self.directions:
            direction.break_off()

    @property
    def who(self) -> str:
        return self.agent.socket.getsockname()[0]


class NodeListener:
    """A node's port, which its workers share: a connection goes to one of those that accept."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[SimStream](1000)
        self._offered: deque[Connection] = deque()
        self.closed = False

    def offer(self, stream: SimStream) -> None:
        self._send.send_nowait(stream)
        assert stream.connection is not None
        self._offered.append(stream.connection)

    @property
    def waiting(self) -> Sequence[Connection]:
        """Those that no worker has taken."""
        while self._offered and self._offered[0].taken is not None:
            self._offered.popleft()
        return self._offered

    def worker(self, process: Process) -> WorkerListener:
        return WorkerListener(self._receive.clone(), process)

    def close(self) -> None:
        """What wasn't accepted is reset."""
        if self.closed:
            return
        self.closed = True
        self._offered.clear()
        self._send.close()
        while True:
            try:
                self._receive.receive_nowait().close()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        self._receive.close()


class WorkerListener(trio.abc.Listener[SimStream]):
    def __init__(self, channel: trio.MemoryReceiveChannel[SimStream], process: Process) -> None:
        self._channel = channel
        self._process = process

    async def accept(self) -> SimStream:
        await self._process.passable()
        try:
            stream = await self._channel.receive()
        except trio.EndOfChannel:
            await trio.sleep_forever()
        stream.belongs_to(self._process)
        if stream.connection is not None:
            stream.connection.taken = trio.current_time()
        return stream

    async def aclose(self) -> None:
        self._channel.close()
        await trio.lowlevel.checkpoint()


class Balancer:
    """Connects agents to nodes: to one that is up, as a rule."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ports = count(40000)
        self.kept_out: set[str] = set()  # agents whose network is down

    async def connect(self, host: str, *, enrollment: bool = False) -> SimStream:
        """To the agents' port, or to that of enrolment. Raises ``ConnectionRefusedError``."""
        world, rng = self._world, self._world.rng_network
        await trio.sleep(rng.uniform(0.0002, 0.002))
        fault = world.meets("network", None)
        if host in self.kept_out or (fault is not None and fault.kind == "refuse"):
            world.trace.strike("refuse", "connection", host)
            raise ConnectionRefusedError(111, "Connection refused")
        up = [node for node in world.nodes if node.is_up]
        node = rng.choice(up if up and rng.random() < 0.95 else world.nodes)
        if not node.is_up:
            raise ConnectionRefusedError(111, "Connection refused")
        connection = Connection(world, host, next(self._ports), fault)
        (node.enrollment if enrollment else node.listener).offer(connection.server)
        world.connections.append(connection)
        return connection.agent
