"""A consumer in a process of its own, for tests that kill it.

usage: transport_process.py URL QUEUE PREFETCH DELIVERY_LIMIT hold|ack|replay

Writes `ready`, then the id of each message that it has taken (hold) or acknowledged (ack). Or it takes nothing and
replays the dead letters (replay), PREFETCH at a time, each time when it has read a line, and writes how many.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from contract.transport_kit import open_with_limit
from voxelmill_shared.transport.topology import QueueSpec

if TYPE_CHECKING:
    from voxelmill_shared.transport.base import Delivery, Transport


async def main(url: str, queue: str, prefetch: int, delivery_limit: int, manner: str) -> None:
    """Consume until killed."""
    ready = asyncio.Event()

    async def callback(delivery: Delivery) -> None:
        await ready.wait()
        if manner == "ack":
            await delivery.ack()
        print(delivery.message.message_id, flush=True)

    transport = open_with_limit(url, delivery_limit)
    if manner == "replay":
        await replay(transport, QueueSpec(queue, (), ladder=()), prefetch)
        return
    await transport.consume(QueueSpec(queue, (), ladder=()), callback, prefetch=prefetch)
    print("ready", flush=True)
    ready.set()
    await asyncio.Event().wait()


async def replay(transport: Transport, queue: QueueSpec, at_a_time: int) -> None:
    """Replay some letters for each line that is read, until killed."""
    async with transport.hold(queue, lambda letter: letter.handle) as hold:
        print("ready", flush=True)
        handles = list(hold.seen)
        for first in range(0, len(handles), at_a_time):
            await asyncio.to_thread(sys.stdin.readline)
            print(await hold.replay(handles[first : first + at_a_time]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
