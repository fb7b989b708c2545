"""The bridge from a real filer to the broker: nothing that was put is lost, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import aio_pika
import pytest
from sqlalchemy import select

from contract.cable import Cable as BrokersCable
from e2e.command import forks
from e2e.processes import END_SECONDS
from voxelmill_ingest.duties import Duty
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_ingest.tables import duties
from voxelmill_ingest.triggers import filer_bridge
from voxelmill_ingest.triggers.announcer import Announcer
from voxelmill_ingest.triggers.filer_bridge import FilerBridge
from voxelmill_ingest.triggers.filer_stream import FilerStream
from voxelmill_ingest.triggers.reach import SourceUnavailableError
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.events import Envelope, open_envelope
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INGEST, TOPOLOGY

PUTS = int(os.environ.get("VOXELMILL_TEST_FILER_PUTS", "150"))
BURST = 10
"""Objects that are put at the same time: what is in hand when the bridge dies is more than one."""
DOWN = PUTS // BURST // 3 * BURST
UP = PUTS // BURST // 2 * BURST
"""Between which of the puts the broker is out of reach."""
KILLS = 4
"""How often one of two bridges is killed; besides, both are when the broker comes back."""
BEHIND = 2 * BURST
"""How many announcements the puts go ahead of: so bridges work all the time, however long each takes to start."""
LEASE_SECONDS = 1.0


async def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, what() if callable(what) else what
        await asyncio.sleep(0.02)


class Announced:
    """What stands in ingest's queue: the keys, each as often as it was announced."""

    def __init__(self, transport):
        self.transport = transport
        self.keys = []

    async def __call__(self, delivery):
        self.keys.append(open_envelope(Envelope.decode(delivery.message.body)).object.key)
        await delivery.ack()

    @asynccontextmanager
    async def heard(self):
        consumer = await self.transport.consume(INGEST, self, prefetch=100)
        try:
            yield self
        finally:
            await consumer.cancel()

    async def wait(self, *keys):
        async def all_there():
            return set(keys) <= set(self.keys)

        await until(all_there, lambda: f"not announced: {set(keys) - set(self.keys)}")


class Installation:
    """A ledger, a broker in a file, and an inbox in a bucket of a real SeaweedFS."""

    def __init__(self, folder, bucket, filer):
        self.database = f"sqlite:///{folder}/ledger.db"
        self.engine = open_database(self.database)
        self.transport = EmbeddedTransport(folder / "broker.db")
        self.inbox = open_store(f"s3://{bucket}", bucket="inbox")
        self.bucket = bucket
        self.filer = filer

    def bridge(self, owner="one", *, filer=None, transport=None):
        stream = FilerStream(filer or self.filer, f"/buckets/{self.bucket}/")
        announcer = Announcer(self.inbox, transport or self.transport, "test")
        return FilerBridge(stream, announcer, Duty(self.engine, "bridge", owner, timedelta(seconds=LEASE_SECONDS)))

    async def cursor(self):
        async with reading(self.engine) as connection:
            return (await connection.execute(select(duties.c.position))).scalar_one_or_none()


@pytest.fixture
async def installation(tmp_path, bucket, seaweedfs):
    installation = Installation(tmp_path, bucket, seaweedfs.filer)
    await upgrade(installation.database, package=MIGRATIONS, version_table=VERSION_TABLE)
    await installation.transport.declare(TOPOLOGY)
    yield installation
    await installation.transport.close()
    await installation.inbox.close()
    await installation.engine.dispose()


@asynccontextmanager
async def running(bridge):
    task = asyncio.create_task(bridge.run())
    try:
        yield bridge
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_open(bridge):
    with suppress(SourceUnavailableError):
        await bridge.check()
        return bridge.duty.held
    return False


@pytest.mark.s3
async def test_what_was_put_before_the_first_start_and_after_is_announced(installation):
    """The first start looks back for a while; then announcements follow the puts."""
    await installation.inbox.write("before", b"x")
    async with running(installation.bridge()), Announced(installation.transport).heard() as announced:
        await announced.wait("before")
        await installation.inbox.write("after", b"x")
        await announced.wait("before", "after")


@pytest.mark.s3
async def test_a_bridge_that_was_stopped_goes_on_where_it_stood(installation, monkeypatch):
    """What was put meanwhile is announced; what was confirmed before is not, but for the overlap (here: none)."""
    monkeypatch.setattr(filer_bridge, "OVERLAP", timedelta(0))
    async with Announced(installation.transport).heard() as announced:
        async with running(installation.bridge()):
            await installation.inbox.write("old", b"x")
            await installation.inbox.write("last", b"x")
            await announced.wait("old", "last")
            stood = await installation.cursor()

            async def moved():
                return (await installation.cursor()) > stood

            await installation.inbox.write("seen", b"x")
            await until(moved, "the cursor was not written")
        await installation.inbox.write("meanwhile", b"x")
        async with running(installation.bridge("another")):
            await announced.wait("meanwhile")
    assert announced.keys.count("old") == 1


class Refusing(EmbeddedTransport):
    """A broker that takes nothing for a while."""

    refuses = True
    asked = 0

    async def publish(self, messages):
        self.asked += 1
        if self.refuses:
            raise BrokerUnavailableError("refused")
        await super().publish(messages)


@pytest.mark.s3
async def test_the_cursor_waits_for_the_broker(installation, tmp_path, caplog):
    """While the broker confirms nothing the cursor stands still; who starts anew announces it all. One line says so."""
    transport = Refusing(tmp_path / "broker.db")
    async with running(installation.bridge(transport=transport)) as bridge:

        async def asked():
            return transport.asked > 2

        await until(lambda: is_open(bridge), "the stream was not opened")
        put = time.time_ns()
        await installation.inbox.write("a", b"x")
        await until(asked, "it was not announced")
        assert await installation.cursor() < put
        async with Announced(installation.transport).heard() as announced:
            assert announced.keys == []
            transport.refuses = False
            await announced.wait("a")
    await transport.close()


class Cable:
    """A way to the filer that a test can cut."""

    def __init__(self, target):
        self.host, _, self.port = target.partition(":")
        self.writers = []
        self.cut = False

    @asynccontextmanager
    async def laid(self):
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.tear()
            server.close()
            await server.wait_closed()

    def tear(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _carry(self, reader, writer):
        if self.cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(self.host, int(self.port))
        self.writers += [writer, far_writer]
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    @staticmethod
    async def _pump(reader, writer):
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@pytest.mark.s3
async def test_a_filer_that_was_away_is_read_from_where_it_was_left(installation):
    """The stream breaks: not ready, and why; it comes back: ready, and what was put meanwhile is announced."""
    cable = Cable(installation.filer)
    async with (
        cable.laid() as address,
        running(installation.bridge(filer=address)) as bridge,
        Announced(installation.transport).heard() as announced,
    ):
        await until(lambda: is_open(bridge), "the stream was not opened")
        await installation.inbox.write("a", b"x")
        await announced.wait("a")
        cable.cut = True
        cable.tear()

        async def is_lost():
            return not await is_open(bridge)

        await until(is_lost, "the loss was not noticed")
        with pytest.raises(SourceUnavailableError, match=r"SeaweedFS's filer 127.0.0.1:[0-9]+: UNAVAILABLE"):
            await bridge.check()
        await installation.inbox.write("b", b"x")
        cable.cut = False
        await until(lambda: is_open(bridge), "the stream was not opened again")
        await announced.wait("a", "b")


@pytest.mark.s3
async def test_one_replica_reads_and_the_other_is_ready_all_the_same(installation):
    """The stream is read once, however many replicas there are."""
    async with (
        running(installation.bridge("one")) as one,
        Announced(installation.transport).heard() as announced,
    ):
        await until(lambda: is_open(one), "the stream was not opened")
        async with running(installation.bridge("other")) as other:
            await installation.inbox.write("a", b"x")
            await announced.wait("a")
            await other.check()
            assert not other.duty.held
    assert announced.keys == ["a"]


class Processes:
    """Bridges in processes of their own: two replicas, which die."""

    def __init__(self, *arguments):
        self.arguments = [*arguments, str(LEASE_SECONDS)]
        self.running = [self._start(), self._start()]

    def _start(self):
        tests = str(Path(__file__).parents[1])
        return forks().start(
            "integration.filer_process", *self.arguments, environment={**os.environ, "PYTHONPATH": tests}
        )

    def kill(self, *numbers):
        """Kill -9 either or both of the two, and start others in their place."""
        for number in numbers:
            self.running[number].send_signal(signal.SIGKILL)
        for number in numbers:
            ended = self.running[number].end(END_SECONDS)
            assert ended.code == -signal.SIGKILL, ended.err
            self.running[number] = self._start()

    async def kill_one(self, drawn):
        """Kill either, at a random moment of what goes on."""
        await asyncio.sleep(drawn.uniform(0, 0.2))
        self.kill(drawn.randrange(2))

    def end(self):
        for process in self.running:
            process.send_signal(signal.SIGKILL)
            process.end(END_SECONDS)


@pytest.mark.rabbitmq
@pytest.mark.s3
async def test_every_object_is_announced_though_bridges_are_killed_and_the_broker_is_lost(
    tmp_path, bucket, s3_environment, rabbitmq_vhost_url, seed
):
    """Objects are put all the time; bridges die by kill -9 at random moments, and the broker is out of reach for a while.

    Every key is announced. That the broker keeps what it has confirmed when it is killed, its own tests show.
    """
    inbox = open_store(f"s3://{bucket}")
    transport = open_transport(rabbitmq_vhost_url)
    await transport.declare(TOPOLOGY)
    keys = [f"{number % 7}/{number}.dcm" for number in range(PUTS)]
    drawn = random.Random(seed)
    kills = drawn.sample(range(0, PUTS, BURST), KILLS)
    try:
        async with (
            BrokersCable(aio_pika.connection.make_url(rabbitmq_vhost_url)).laid() as cable,
            Announced(transport).heard() as announced,
        ):
            processes = Processes(cable.url, f"sqlite:///{tmp_path}/ledger.db", f"s3://{bucket}", s3_environment.filer)
            try:
                for first in range(0, PUTS, BURST):
                    puts = [inbox.write(key, key.encode()) for key in keys[first : first + BURST]]
                    await asyncio.gather(*puts, *([processes.kill_one(drawn)] if first in kills else []))
                    if first == DOWN:
                        cable.plugged_in = False
                        cable.cut()
                    if first == UP:  # whichever bridge has read what was put meanwhile, it dies with it unconfirmed
                        processes.kill(0, 1)
                        cable.plugged_in = True
                    if cable.plugged_in:
                        await announced.wait(*keys[: max(first + BURST - BEHIND, 0)])
                await announced.wait(*keys)
            finally:
                processes.end()
    finally:
        await transport.close()
        await inbox.close()
