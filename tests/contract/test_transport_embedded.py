"""What only the embedded transport promises: its one file, shared, and clear words when it cannot be used."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from contract.transport_kit import Broker, counted, letters, subscribe
from voxelmill_shared.errors import BrokerUnavailableError, DeliveryLostError, UnroutableError
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import QueueSpec, Topology

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = QueueSpec("work", ("#",), ladder=())
GARBAGE = b"not a database" * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue file is."""
    return tmp_path / "folder of its own" / "queues.db"


@pytest.fixture
def broker(path: Path) -> Broker:
    """Give the file as a broker."""
    return Broker(f"embedded://{path}")


async def test_publishing_is_all_or_nothing(broker: Broker) -> None:
    """One unroutable message among many: none of them is published."""
    transport, queue = broker.open(), broker.queue("work", "wanted")
    await transport.declare(Topology((queue,)))
    good = [broker.message(number, key="wanted") for number in range(10)]
    with pytest.raises(UnroutableError):
        await transport.publish([*good, broker.message("bad", key="unwanted")])
    await counted(transport, queue, ready=0)
    await transport.close()


async def test_a_message_that_cannot_be_written(broker: Broker) -> None:
    """The one who publishes it is told; others who publish at the same time are not in its way."""
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    bad = Message(b"", broker.key("a"), "\udcff")
    results = await asyncio.gather(
        *(transport.publish([message]) for message in (broker.message(1), bad, broker.message(2))),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), UnicodeEncodeError, type(None)]
    await counted(transport, queue, ready=2)
    await transport.close()


async def test_many_small_operations_share_commits(path: Path) -> None:
    """Several transports publish and acknowledge at the same time, none in the way of another, nothing twice."""
    transports = [EmbeddedTransport(path) for _ in range(3)]
    await transports[0].declare(Topology((QUEUE,)))
    boxes = [await subscribe(transport, QUEUE, prefetch=4) for transport in transports]
    seen: list[str] = []

    async def publish(transport: EmbeddedTransport, first: int) -> None:
        await asyncio.gather(
            *(transport.publish([Message(b"", "a", str(number))]) for number in range(first, first + 100))
        )

    async def take(number: int) -> None:
        while True:
            delivery = await boxes[number][0].next()
            seen.append(delivery.message.message_id)
            await delivery.ack()

    takers = [asyncio.create_task(take(number)) for number in range(3)]
    await asyncio.gather(*(publish(transport, 100 * number) for number, transport in enumerate(transports)))
    await counted(transports[0], QUEUE, ready=0, in_hand=0)
    for taker in takers:
        taker.cancel()
    await asyncio.gather(*takers, return_exceptions=True)
    for transport in transports:
        await transport.close()
    assert sorted(map(int, seen)) == list(range(300))


async def test_nothing_is_left_behind(path: Path) -> None:
    """After the last one has closed there is one file, and an empty folder of locks."""
    transport = EmbeddedTransport(path)
    await transport.check()
    assert len(list((path.parent / "queues.db.owners").iterdir())) == 1
    await transport.close()
    await transport.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["queues.db", "queues.db.owners"]
    assert list((path.parent / "queues.db.owners").iterdir()) == []


async def test_the_locks_of_the_dead_are_swept(path: Path) -> None:
    """A lock file that nobody holds is removed by the next one who opens."""
    owners = path.parent / "queues.db.owners"
    owners.mkdir(parents=True)
    (owners / "0123").touch()
    transport = EmbeddedTransport(path)
    await transport.check()
    assert not (owners / "0123").exists()
    await transport.close()


async def test_a_file_that_is_no_queue_file(path: Path) -> None:
    """Garbage is refused with the file's name, never overwritten, and works once it is gone."""
    path.parent.mkdir()
    await asyncio.to_thread(path.write_bytes, GARBAGE)
    transport = EmbeddedTransport(path)
    with pytest.raises(BrokerUnavailableError, match=r"queues\.db: file is not a database"):
        await transport.check()
    assert await asyncio.to_thread(path.read_bytes) == GARBAGE
    await asyncio.to_thread(path.unlink)
    await transport.check()
    await transport.close()


async def test_a_file_of_another_layout(path: Path) -> None:
    """A file that a later version made is refused and left alone."""
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    transport = EmbeddedTransport(path)
    with pytest.raises(BrokerUnavailableError, match="another version"):
        await transport.check()
    await transport.close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """The path leads through a file: one clear line."""
    (tmp_path / "file").touch()
    transport = EmbeddedTransport(tmp_path / "file" / "queues.db")
    with pytest.raises(BrokerUnavailableError, match=r"queues\.db: .*file"):
        await transport.check()
    await transport.close()


def test_a_full_disk(path: Path) -> None:
    """What does not fit is an error, and what was published before is still there."""
    program = f"""
import asyncio, pathlib
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import QueueSpec, Topology

async def main():
    transport = EmbeddedTransport(pathlib.Path({str(path)!r}))
    await transport.declare(Topology((QueueSpec("work", ("#",)),)))
    published = 0
    try:
        while True:
            await transport.publish([Message(bytes(20_000), "a", str(published))])
            published += 1
    except BrokerUnavailableError as error:
        print(published, error)
    (count,) = await transport.counts()
    assert count.ready == published, count
    await transport.close()

asyncio.run(main())
"""

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limit_files,
    )
    assert done.returncode == 0, done.stderr
    published, _, reason = done.stdout.strip().partition(" ")
    assert int(published) > 3
    assert "queues.db: " in reason


def alter(path: Path, *statements: str) -> None:
    """Change the file behind its users' back."""
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


async def test_a_subscription_that_failed_takes_nothing(broker: Broker, path: Path) -> None:
    """Whoever asked was told that there is none: its messages would lie in hand for ever."""
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message("late")])
    alter(
        path,
        "UPDATE message SET state = 1, due = 0.0",  # its wait is over, so the next transaction updates it
        "CREATE TRIGGER full BEFORE UPDATE ON message BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    )
    with pytest.raises(BrokerUnavailableError, match="disk full"):
        await subscribe(transport, queue, prefetch=10)
    alter(path, "DROP TRIGGER full", "DELETE FROM message")
    inbox, _ = await subscribe(transport, queue, prefetch=10)
    await transport.publish([broker.message(number) for number in range(10)])
    assert [delivery.message.message_id for delivery in await inbox.take(10)] == [str(n) for n in range(10)]
    await transport.close()


async def test_a_message_that_was_taken_back(broker: Broker, path: Path) -> None:
    """It cannot be settled any more, which is told apart from a file that cannot be written, and its place is free."""
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message(1), broker.message(2)])
    inbox, _ = await subscribe(transport, queue)
    delivery = await inbox.next()
    alter(path, "UPDATE message SET state = 0, owner = NULL WHERE owner IS NOT NULL")
    for settlement in (delivery.ack(), delivery.release(), delivery.retry(0, {}), delivery.dead_letter({})):
        with pytest.raises(DeliveryLostError):
            await settlement
    for number in ("1", "2"):
        again = await inbox.next()
        assert again.message.message_id == number
        assert len(inbox) == 0
        await again.ack()
    await counted(transport, queue, ready=0, in_hand=0)
    await transport.close()
    with pytest.raises(DeliveryLostError):
        await delivery.ack()


async def test_a_loop_that_ended_without_closing(broker: Broker) -> None:
    """What it had in hand comes back by itself, although its process lives on."""
    queue = broker.queue()

    async def forget_to_close() -> None:
        transport = open_transport(broker.url)
        await transport.declare(Topology((queue,)))
        await transport.publish([broker.message(1), broker.message(2)])
        inbox, _ = await subscribe(transport, queue)
        await inbox.next()

    await asyncio.to_thread(asyncio.run, forget_to_close())
    transport = broker.open()
    inbox, _ = await subscribe(transport, queue, prefetch=2)
    assert {delivery.message.message_id for delivery in await inbox.take(2)} == {"1", "2"}
    await transport.close()


async def test_dead_letters_can_be_replayed_while_looking(broker: Broker) -> None:
    """A look that replays what it sees meets every letter once."""
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message(number) for number in range(120)])
    inbox, consumer = await subscribe(transport, queue, prefetch=120)
    for delivery in await inbox.take(120):
        await delivery.dead_letter({})
    await consumer.cancel()
    seen = 0
    async for letter in transport.dead_letters(queue):
        seen += await transport.replay(queue, [letter.handle])
    assert seen == 120
    assert await letters(transport, queue) == []
    await transport.close()
