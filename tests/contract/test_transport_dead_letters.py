"""The contract of every transport on dead letters in hand: seen without loss, replayed or dropped with a notice."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import aio_pika
import pytest

from contract.test_transport_settling import bury
from contract.transport_kit import SOON, Broker, counted, letters, other_process, replaying_process, subscribe
from voxelmill_shared.errors import UnroutableError
from voxelmill_shared.transport import rabbit_dead_letters
from voxelmill_shared.transport.base import (
    HEADER_ATTEMPT,
    HEADER_ERROR_CLASS,
    HEADER_REPLAYS,
    DeadLetter,
    DeadLettersHeldError,
    Message,
    Transport,
)
from voxelmill_shared.transport.topology import Topology, TopologyMismatchError

if TYPE_CHECKING:
    from voxelmill_shared.transport.topology import QueueSpec

KILLS = 4


def number(letter: DeadLetter) -> int:
    """View a letter as the number that the test gave it."""
    return int(letter.message.message_id)


async def bury_many(broker: Broker, transport: Transport, queue: QueueSpec, count: int) -> None:
    """Bury messages 0 to count, many at a time."""
    await transport.publish([broker.message(each) for each in range(count)])
    inbox, consumer = await subscribe(transport, queue, prefetch=count)
    taken = await inbox.take(count)
    await asyncio.gather(*(delivery.dead_letter({}) for delivery in taken))
    await consumer.cancel()


async def test_what_is_dropped_is_gone(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """It comes from nowhere any more; the others stay, and unknown, repeated and spent handles do not count."""
    await bury(transport, work, *(broker.message(each) for each in range(3)))
    _, second, _ = await letters(transport, work)
    assert await transport.drop(work, []) == 0
    assert await transport.drop(work, ["unknown", "4711", "9" * 40]) == 0
    assert await transport.drop(work, [second.handle, second.handle]) == 1
    assert await transport.drop(work, [second.handle]) == 0
    assert await transport.replay(work, [second.handle]) == 0
    assert [number(letter) for letter in await letters(transport, work)] == [0, 2]
    await counted(transport, work, dead=2, ready=0, in_hand=0, waiting=0)


async def test_a_hold_keeps_what_its_view_returns(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Oldest first, in more than one page; what is settled is gone when it ends, and all else is where it was."""
    await bury_many(broker, transport, work, 450)
    handles: dict[int, str] = {}
    async with transport.hold(work, lambda letter: handles.setdefault(number(letter), letter.handle)) as hold:
        assert len(hold.seen) == len(handles) == 450
        assert await hold.replay([handles[each] for each in range(0, 450, 3)]) == 150
        assert await hold.drop([handles[each] for each in range(1, 450, 3)]) == 150
        assert await hold.replay([handles[0], handles[1]]) == 0
    assert sorted(number(letter) for letter in await letters(transport, work)) == list(range(2, 450, 3))
    await counted(transport, work, ready=150, dead=150)
    inbox, _ = await subscribe(transport, work, prefetch=150)
    assert sorted(int(d.message.message_id) for d in await inbox.take(150)) == list(range(0, 450, 3))


async def test_a_hold_that_breaks_lays_back(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """An error inside leaves every letter where it was, for others to see at once."""
    await bury(transport, work, broker.message(0))

    async def look_and_break() -> None:
        async with transport.hold(work, number) as hold:
            assert hold.seen == [0]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await look_and_break()
    assert [number(letter) for letter in await letters(broker.open(), work)] == [0]


async def test_a_queue_that_does_not_exist_has_no_letters(broker: Broker, transport: Transport) -> None:
    """Looking makes nothing."""
    missing = broker.queue("missing")
    await transport.declare(Topology((broker.queue("there"),)))
    async with transport.hold(missing, number) as hold:
        assert list(hold.seen) == []
        assert await hold.replay(["1"]) == 0


@pytest.mark.parametrize("verb", ["replay", "drop"])
async def test_a_notice_is_there_before_the_letter_goes(
    broker: Broker, transport: Transport, work: QueueSpec, verb: str
) -> None:
    """The notices of letters that are there are published; where nobody wants them, no letter goes."""
    told = broker.queue("told", "told")
    await transport.declare(Topology((told,)))
    await bury(transport, work, broker.message(0), broker.message(1))
    first, second = await letters(transport, work)
    for queue in (told,):
        await drain(transport, queue, 0)
    unwanted = {first.handle: Message(b"", "wanted by nobody", "n")}
    async with transport.hold(work, number) as hold:
        with pytest.raises(UnroutableError):
            await getattr(hold, verb)([first.handle, second.handle], unwanted)
    await counted(transport, work, dead=2, ready=0)
    notices = {handle: broker.message(f"notice of {handle}", "told") for handle in (first.handle, "77777")}
    async with transport.hold(work, number) as hold:
        assert await getattr(hold, verb)([first.handle, "77777"], notices) == 1
    assert await drain(transport, told, 1) == [f"notice of {first.handle}"]
    await counted(transport, work, dead=1)


async def drain(transport: Transport, queue: QueueSpec, count: int) -> list[str]:
    """Acknowledge messages of a queue and give their ids."""
    inbox, consumer = await subscribe(transport, queue)
    found = []
    for delivery in [await inbox.next() for _ in range(count)]:
        found.append(delivery.message.message_id)
        await delivery.ack()
    await consumer.cancel()
    return found


async def test_a_letter_that_dies_again(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """It is another letter, by another handle, of a message that has been replayed once more."""
    await bury(transport, work, broker.message(0, key="a.b", kept="yes", **{HEADER_ATTEMPT: 3}))
    handles = set()
    for replays in range(3):
        (letter,) = await letters(transport, work)
        handles.add(letter.handle)
        assert letter.message.headers.get(HEADER_REPLAYS, 0) == replays
        assert (letter.message.routing_key, letter.message.headers["kept"]) == (broker.key("a.b"), "yes")
        assert await transport.replay(work, [letter.handle]) == 1
        inbox, consumer = await subscribe(transport, work)
        await (await inbox.next()).retry(0, {HEADER_ATTEMPT: 2})  # a rung keeps the count too
        again = await inbox.next()
        assert (again.attempt, again.message.headers[HEADER_REPLAYS]) == (2, replays + 1)
        await again.dead_letter({})
        await consumer.cancel()
    assert len(handles) == 3


async def test_a_killer_is_replayed_and_kills_again(broker: Broker) -> None:
    """What the transport itself has buried comes back as attempt 1, as often as it is replayed, under its own key."""
    broker.delivery_limit = 0
    transport, queue = broker.open(), broker.queue()
    await transport.declare(Topology((queue,)))
    await transport.publish([broker.message("killer", key="a.b", **{HEADER_ATTEMPT: 2})])
    handles = set()
    for replays in range(2):
        async with other_process(broker, queue, "hold", prefetch=1) as other:
            assert await other.line() == "killer"
        await counted(transport, queue, dead=1, ready=0)
        (letter,) = await letters(transport, queue)
        handles.add(letter.handle)
        assert letter.message.routing_key == broker.key("a.b")
        assert letter.message.headers[HEADER_ERROR_CLASS] == "delivery-limit"
        assert letter.message.headers.get(HEADER_REPLAYS, 0) == replays
        assert await transport.replay(queue, [letter.handle]) == 1
    inbox, _ = await subscribe(transport, queue)
    last = await inbox.next()
    assert (last.attempt, last.message.headers[HEADER_REPLAYS], last.message.routing_key) == (1, 2, broker.key("a.b"))
    assert len(handles) == 2


async def test_browsing_fifty_times(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """No limit of deliveries ever takes a letter away because it was looked at."""
    await bury_many(broker, transport, work, 20)
    for _ in range(50):
        async with transport.hold(work, number) as hold:
            assert sorted(hold.seen) == list(range(20))
    await counted(transport, work, dead=20)


async def test_two_who_look_at_once_both_see_everything(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """From one transport and from two."""
    await bury_many(broker, transport, work, 100)
    other = broker.open()
    seen = await asyncio.gather(*(letters(each, work) for each in (transport, transport, other, other)))
    assert [len(found) for found in seen] == [100] * 4


async def test_a_letter_that_comes_meanwhile_stays(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """What dies while others are held is neither replayed with them nor lost."""
    await bury(transport, work, broker.message(0))
    (first,) = await letters(transport, work)
    async with transport.hold(work, number) as hold:
        await bury(broker.open(), work, broker.message(1))
        assert await hold.replay([first.handle]) == 1
    assert [number(letter) for letter in await letters(transport, work)] == [1]
    await counted(transport, work, ready=1, dead=1)


async def test_killed_at_any_moment_a_replay_loses_nothing_and_repeats_nothing(
    broker: Broker, transport: Transport, work: QueueSpec
) -> None:
    """A replaying process dies by kill -9 again and again, in the middle: every message is delivered exactly once."""
    total = 400
    await bury_many(broker, transport, work, total)
    delivered: list[str] = []

    async def count(delivery) -> None:  # type: ignore[no-untyped-def]
        assert (delivery.attempt, delivery.message.headers[HEADER_REPLAYS]) == (1, 1)
        delivered.append(delivery.message.message_id)
        await delivery.ack()

    await transport.consume(work, count, prefetch=50)
    drawn = random.Random(7)
    for _ in range(KILLS):
        async with replaying_process(broker, work) as other:
            for _ in range(drawn.randrange(9)):  # at ten letters each, some are left after the last kill
                other.go_on()
                await other.line()
            other.go_on()
            await asyncio.sleep(drawn.random() / 200)  # the moment of the fault, not a wait for something
            await other.kill()
        until = time.monotonic() + SOON
        while len(set(delivered)) + len(await letters(transport, work)) < total:
            assert time.monotonic() < until, "the letters that the dead had in hand do not come back"
            await asyncio.sleep(0.02)
        assert len(delivered) < total
    await transport.replay(work, [letter.handle for letter in await letters(transport, work)])
    await counted(transport, work, ready=0, in_hand=0, dead=0)
    assert sorted(map(int, delivered)) == list(range(total))


# What only RabbitMQ has


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.rabbitmq
async def test_letters_in_the_hand_of_another(
    broker: Broker, transport: Transport, work: QueueSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while another process holds them for long is told so, and nothing is hidden from the next one."""
    monkeypatch.setattr(rabbit_dead_letters, "PATIENCE_SECONDS", 0.3)
    await bury(transport, work, broker.message(0))
    other = broker.open()
    async with transport.hold(work, number):
        with pytest.raises(DeadLettersHeldError, match="another process has these dead letters in hand"):
            await letters(other, work)
    assert [number(letter) for letter in await letters(other, work)] == [0]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.rabbitmq
async def test_a_queue_that_leads_nowhere_is_not_replayed(broker: Broker, transport: Transport) -> None:
    """Out of a dead-letter queue that leads nowhere a rejected letter would be lost: it is refused, and stays."""
    queue = broker.queue()
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        earlier = {"x-queue-type": "quorum", "x-delivery-limit": 2_000_000_000}
        await channel.declare_queue(queue.dead_letters, durable=True, arguments=earlier)
        await channel.default_exchange.publish(aio_pika.Message(b"x", message_id="1"), queue.dead_letters)
        with pytest.raises(TopologyMismatchError, match="is none there and must be"):
            await letters(transport, queue)
        again = await channel.declare_queue(queue.dead_letters, passive=True)
        assert again.declaration_result.message_count == 1


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.rabbitmq
async def test_letters_that_are_the_same_in_every_byte(broker: Broker, transport: Transport, work: QueueSpec) -> None:
    """Each has a handle of its own, and all of them can be replayed."""
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        for _ in range(3):
            await channel.default_exchange.publish(aio_pika.Message(b"x", message_id="1"), work.dead_letters)
    found = await letters(transport, work)
    assert len({letter.handle for letter in found}) == 3
    assert await transport.replay(work, [letter.handle for letter in found]) == 3
    await counted(transport, work, ready=3, dead=0)
