"""A dependency that is away stops the consumer and not the messages: held on both transports, with real servers."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from contract.storage_kit import relayed
from contract.transport_kit import counted
from servers import postgresql
from voxelmill_shared import circuit
from voxelmill_shared.database import check, open_database, reading
from voxelmill_shared.database_limits import DatabaseLimits
from voxelmill_shared.errors import DependencyAwayError, StoreUnavailableError
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, Stage
from voxelmill_shared.metrics import REGISTRY
from voxelmill_shared.outcome import Done
from voxelmill_shared.parts import Scratch
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INGEST
from voxelmill_shared.worker import Settled, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from servers.private import PrivateServer
    from servers.seaweedfs import S3Server
    from voxelmill_shared.transport.base import Transport

SOON = 30.0
PREFETCH = 4
MESSAGES = 12


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often than a service does, so that the tests need not wait for it."""
    monkeypatch.setattr(circuit, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(circuit, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(circuit, "CHECK_SECONDS", 1.0)


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def transport(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    """Give each transport in turn, with Voxelmill's own queues to itself."""
    embedded = request.param == "embedded"
    url = f"embedded://{tmp_path}/broker.db" if embedded else request.getfixturevalue("rabbitmq_vhost_url")
    opened = open_transport(url)
    yield opened
    await opened.close()


@dataclass
class Running:
    """A worker whose handler works on a dependency, and what was seen of it."""

    worker: Worker
    stop: asyncio.Event
    task: asyncio.Task[None]
    settled: list[Settled] = field(default_factory=list)

    def ended(self, outcome: str) -> list[str]:
        """Name the messages that ended so."""
        return [one.event.object.key for one in self.settled if one.outcome == outcome]  # type: ignore[union-attr]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(SOON):
            while not condition():
                assert not self.task.done(), self.task.result()
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(
    transport: Transport, checks: Mapping[str, Any], work: Callable[[ObjectUploaded], Awaitable[object]]
) -> AsyncIterator[Running]:
    """Run a worker that does `work` for each message."""

    async def handle(event: ObjectUploaded) -> Done:
        await work(event)
        return Done()

    settled: list[Settled] = []
    service = Service(
        "ingest", Stage.INGEST, (Subscription(INGEST, {ObjectUploaded: handle}, prefetch=PREFETCH),), checks=checks
    )
    worker = Worker(
        service,
        transport,
        ladder=[timedelta(milliseconds=50)],
        observers=[lambda what: settled.append(what) if isinstance(what, Settled) else None],
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(SOON):
        await worker.consuming.wait()
    run = Running(worker, stop, task, settled)
    try:
        yield run
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def publish(transport: Transport, number: int = MESSAGES) -> list[str]:
    """Announce objects; return their keys."""
    keys = [f"{one:02d}" for one in range(number)]
    events = [
        ObjectUploaded(object=ObjectRef(bucket="inbox", key=key, etag="e", size=1), found_by="command") for key in keys
    ]
    envelopes = [Envelope.wrap(event, "test") for event in events]
    await transport.publish([Message(e.encode(), e.routing_key, str(e.id)) for e in envelopes])
    return keys


def is_open(dependency: str) -> float | None:
    return REGISTRY.get_sample_value("voxelmill_circuit_open", {"service": "ingest", "dependency": dependency})


async def waits_and_goes_on(
    transport: Transport,
    checks: Mapping[str, Any],
    work: Callable[[ObjectUploaded], Awaitable[object]],
    dependency: str,
    come_back: Callable[[], None],
) -> None:
    """Hold the promise: with a dependency away nothing is taken or spent, and with it back all is done once."""
    begun: list[str] = []

    async def counting(event: ObjectUploaded) -> None:
        begun.append(event.object.key)
        await work(event)

    with capture_logs() as lines:
        async with running(transport, checks, counting) as run:
            keys = await publish(transport)
            await run.until(lambda: not run.worker.consuming.is_set())
            await counted(transport, INGEST, ready=MESSAGES, waiting=0, in_hand=0, dead=0)
            taken = len(begun)
            assert taken <= 2 * PREFETCH, "the queue went round"
            assert is_open(dependency) == 1
            with pytest.raises(DependencyAwayError, match="waiting since 20"):
                await run.worker.circuits.checks()[dependency]()
            come_back()
            await run.until(lambda: len(run.ended("done")) == MESSAGES)
            assert sorted(run.ended("done")) == keys
            assert {one.attempt for one in run.settled} == {1}
            assert {one.outcome for one in run.settled} == {"done", "released"}
            assert is_open(dependency) == 0
            await run.worker.circuits.checks()[dependency]()
            await counted(transport, INGEST, ready=0, waiting=0, in_hand=0, dead=0)
    said = [line["event"] for line in lines if line.get("dependency") == dependency]
    assert said == ["waiting for a dependency, taking no messages", "the dependency answers, taking messages"]


@pytest.mark.s3
async def test_a_store_that_is_away_is_waited_for(transport: Transport, s3_environment: S3Server, bucket: str) -> None:
    """Connections to the store are cut: nothing is taken until it answers, no attempt is spent, all is done once."""
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint, tries=1)
        try:
            await store.check()
            relay.down = lambda _: None

            def come_back() -> None:
                relay.down = lambda data: data

            async def work(event: ObjectUploaded) -> None:
                await store.write(event.object.key, b"x")

            await waits_and_goes_on(transport, {"results": store.check}, work, "store", come_back)
        finally:
            await store.close()


def processes_of(server: PrivateServer) -> list[int]:
    """Find a PostgreSQL server's processes: the first, and those that it has forked."""
    first = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    forked = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, forked)]


@pytest.mark.postgresql
async def test_a_database_that_is_stopped_is_waited_for(transport: Transport) -> None:
    """Every process of the server is stopped and keeps its connections: that is an outage too, and passes."""
    server, facts = postgresql.start(postgresql.programs())
    limits = DatabaseLimits(connections=PREFETCH + 1, wait_seconds=1, connect_seconds=0.5, statement_seconds=0.3)
    engine = open_database(facts["url"], limits)
    try:
        await check(engine)
        stopped = processes_of(server)

        def send(number: signal.Signals) -> None:
            for process in stopped:
                with suppress(ProcessLookupError):  # one whose client had hung up ends when it goes on
                    os.kill(process, number)

        async def work(_: ObjectUploaded) -> None:
            async with reading(engine):
                pass

        send(signal.SIGSTOP)
        try:
            await waits_and_goes_on(
                transport, {"database": lambda: check(engine)}, work, "database", lambda: send(signal.SIGCONT)
            )
        finally:
            send(signal.SIGCONT)
    finally:
        await engine.dispose()
        server.stop()


async def test_a_disk_that_is_nearly_full_is_waited_for(transport: Transport, tmp_path: Path) -> None:
    """Below the mark no work begins; above it the work goes on by itself."""
    root = tmp_path / "scratch"
    scratch = Scratch(root, free_bytes=1 << 62)

    async def work(_: ObjectUploaded) -> None:
        with scratch.folder("work"):
            pass

    async def measure() -> None:
        await scratch.check()

    def come_back() -> None:
        nonlocal scratch
        scratch = Scratch(root, free_bytes=1)

    await waits_and_goes_on(transport, {"disk": measure}, work, "disk", come_back)


async def test_a_disk_that_fills_up_in_the_middle_spends_no_attempt(transport: Transport) -> None:
    """The system's own error is enough, whatever it comes wrapped in; the check may pass, for the work was removed."""
    fails = 2 * circuit.MOST_FAILURES

    async def work(_: ObjectUploaded) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if fails % 2:
                raise StoreUnavailableError("results") from full
            raise full

    async def passes() -> None:
        pass

    with capture_logs() as lines:
        async with running(transport, {"disk": passes}, work) as run:
            await publish(transport, 1)
            await run.until(lambda: run.ended("done") == ["00"])
    assert {one.attempt for one in run.settled} == {1}
    assert not [line for line in lines if line["event"] == "handler broke"]
    # A check that passes is believed a few times; then the work is tried at growing intervals.
    assert [one.outcome for one in run.settled].count("waiting") < circuit.MOST_FAILURES
    assert any(line.get("dependency") == "disk" for line in lines)


async def test_one_message_that_fails_alone_does_not_stop_the_others(transport: Transport) -> None:
    """Where the dependency's check passes, the message waits on its rung, and what comes behind it is taken."""
    again = asyncio.Event()

    async def work(event: ObjectUploaded) -> None:
        if event.object.key == "00" and not again.is_set():
            raise StoreUnavailableError("inbox/00: the server answered InternalError")

    async def passes() -> None:
        pass

    async with running(transport, {"inbox": passes}, work) as run:
        await publish(transport)
        await run.until(lambda: len(run.ended("done")) == MESSAGES - 1)
        again.set()
        await run.until(lambda: len(run.ended("done")) == MESSAGES)
    assert {one.attempt for one in run.settled} == {1}
    assert "released" not in {one.outcome for one in run.settled}


@pytest.mark.parametrize("deciding", [True, False])
async def test_a_drain_ends_at_once_while_a_dependency_is_waited_for(transport: Transport, deciding: bool) -> None:
    """Also while it is still being asked for the first time: nothing is in hand any more, and nothing is lost."""
    asked = asyncio.Event()

    async def never() -> None:
        asked.set()
        if deciding:
            await asyncio.Event().wait()
        raise StoreUnavailableError("away")

    async def work(_: ObjectUploaded) -> None:
        raise StoreUnavailableError("away")

    async with running(transport, {"results": never}, work) as run:
        await publish(transport)
        await run.until(asked.is_set if deciding else lambda: not run.worker.consuming.is_set())
        before = time.monotonic()
        run.stop.set()
        async with asyncio.timeout(SOON):
            await run.task
        assert time.monotonic() - before < 5, "the drain waited for the dependency"
    assert {one.outcome for one in run.settled} <= {"released"}
    await counted(transport, INGEST, ready=MESSAGES, waiting=0, in_hand=0, dead=0)
