"""What does the worker's runtime cost, compared with the client library alone?

Events per second of one process that takes a message from RabbitMQ, publishes one event with confirmation and
`mandatory`, and acknowledges the message:

worker      the runtime with a handler that does nothing but give one event: decodes the CloudEvents document, wraps and
            encodes the new one, counts, logs, observes
bare        aio-pika doing just that with bytes: no JSON, no metrics, no log
bare+JSON   as bare, but reading and writing the JSON as the standard library does

All three take from the same quorum queue with the same prefetch and publish bodies of the same size to the same
exchange, in turns, in one run, each in a process of its own. The broker is a private one, started for this.

usage: python bench/bus.py     (VOXELMILL_BENCH_RUNS=5 VOXELMILL_BENCH_EVENTS=4000 VOXELMILL_BENCH_PREFETCH=64)
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika

from report import Aim, end, table
from voxelmill_shared import logs
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, ObjectValidated, Stage
from voxelmill_shared.main import spare_the_collector
from voxelmill_shared.outcome import Done
from voxelmill_shared.service import Service, Subscription
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topology import DEFAULT_LADDER, EVENTS_EXCHANGE, INDEX, INGEST, TOPOLOGY
from voxelmill_shared.worker import Settled, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aio_pika.abc import AbstractIncomingMessage

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "5"))
EVENTS = int(os.environ.get("VOXELMILL_BENCH_EVENTS", "4000"))
PREFETCH = int(os.environ.get("VOXELMILL_BENCH_PREFETCH", "64"))
SERIES = "1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678"
STUDY = "1.2.826.0.1.3680043.8.498.98765432109876543210987654321098765432"


def uploaded(number: int) -> ObjectUploaded:
    """Make the event that is taken."""
    key = f"inbox/chest/IM{number:08}.dcm"
    reference = ObjectRef(bucket="voxelmill", key=key, etag=f"{number:032x}", size=524_288)
    return ObjectUploaded(object=reference, found_by="notification")


def validated(event: ObjectUploaded) -> ObjectValidated:
    """Make the event that is published."""
    return ObjectValidated(
        object=event.object, kind="dicom", study_instance_uid=STUDY, series_instance_uid=SERIES, modality="CT"
    )


class Finish:
    """Counts settled messages. The clock runs from the first to the last one, so no start is measured."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.wall = self.cpu = 0.0
        self._count = 0

    def settled(self) -> None:
        """Count one."""
        self._count += 1
        if self._count == 1:
            self.wall, self.cpu = time.perf_counter(), time.process_time()
        elif self._count == EVENTS:
            self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
            self.reached.set()


async def run_worker(url: str, finish: Finish) -> Callable[[], Coroutine[Any, Any, None]]:
    """Start the runtime; return what stops it. It logs as a service does, but nobody reads it."""
    logs.configure("INFO")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    async def handle(event: ObjectUploaded) -> Done:
        return Done((validated(event),))

    def observe(what: object) -> None:
        if isinstance(what, Settled):
            if what.outcome != "done":
                raise SystemExit(f"{what.outcome}: {what.reason}")
            finish.settled()

    service = Service("ingest", Stage.INGEST, (Subscription(INGEST, {ObjectUploaded: handle}, prefetch=PREFETCH),))
    transport = RabbitTransport(url)
    stop = asyncio.Event()
    worker = Worker(service, transport, ladder=DEFAULT_LADDER, observers=[observe], grace=timedelta(seconds=5))
    spare_the_collector()  # as every service does
    running = asyncio.create_task(worker.run(stop))

    async def stopped() -> None:
        stop.set()
        await running
        await transport.close()

    return stopped


async def run_bare(url: str, finish: Finish, *, with_json: bool) -> Callable[[], Coroutine[Any, Any, None]]:
    """Start a consumer that uses aio-pika as its documentation shows; return what stops it."""
    sample = Envelope.wrap(validated(uploaded(1)), "voxelmill/ingest/host/1").encode()
    document = json.loads(sample)
    connection = await aio_pika.connect(url)
    publisher = await connection.channel(publisher_confirms=True, on_return_raises=True)
    exchange = await publisher.get_exchange(EVENTS_EXCHANGE, ensure=False)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(INGEST.name, ensure=False)

    async def callback(incoming: AbstractIncomingMessage) -> None:
        body = sample
        if with_json:
            document["causationid"] = json.loads(incoming.body)["id"]
            body = json.dumps(document, separators=(",", ":")).encode()
        message = aio_pika.Message(
            body,
            message_id=incoming.message_id,
            content_type="application/cloudevents+json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, ObjectValidated.type, mandatory=True)
        await incoming.ack()
        finish.settled()

    tag = await queue.consume(callback)

    async def stopped() -> None:
        await queue.cancel(tag)  # a broker of 3.10 forgets the last acknowledgements of a channel that closes at once
        await connection.close()

    return stopped


async def one_turn(kind: str, url: str) -> None:
    """Work off what is in the queue, in this process; print the wall time and the CPU time of it."""
    finish = Finish()
    stop = await (run_worker(url, finish) if kind == "worker" else run_bare(url, finish, with_json=kind != "bare"))
    async with asyncio.timeout(300):
        await finish.reached.wait()
    await stop()
    print(json.dumps({"wall": finish.wall, "cpu": finish.cpu}))


async def fill(transport: RabbitTransport) -> None:
    """Put the messages of one turn into the queue."""
    envelopes = [Envelope.wrap(uploaded(number), "voxelmill/bench") for number in range(EVENTS)]
    await transport.publish([Message(e.encode(), e.routing_key, str(e.id)) for e in envelopes])


async def settle(transport: RabbitTransport, url: str, kind: str) -> None:
    """Hold a turn to what it should have done, and clear the table for the next one."""
    until = time.monotonic() + 60
    while True:
        counts = {count.queue: count for count in await transport.counts()}
        if counts[INGEST.name].ready == 0 and counts[INDEX.name].ready == EVENTS:
            break
        if time.monotonic() > until:
            raise SystemExit(f"{kind} did not do its work: {counts[INGEST.name]}, {counts[INDEX.name]}")
        await asyncio.sleep(0.05)
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await (await channel.get_queue(INDEX.name, ensure=False)).purge()


KINDS = ("worker", "bare", "bare+JSON")


async def measure(url: str) -> dict[str, list[dict[str, float]]]:
    """Take turns."""
    transport = RabbitTransport(url)
    await transport.declare(TOPOLOGY)
    turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(RUNS + 1):
        for kind in KINDS:
            await fill(transport)
            command = [sys.executable, __file__, kind, url]
            done = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True, timeout=300)
            await settle(transport, url, kind)
            if number:  # the first round warms the broker up
                turns[kind].append(json.loads(done.stdout))
    await transport.close()
    return turns


def main() -> None:
    """Start a broker, take turns, print the medians."""
    if sys.argv[1:]:
        asyncio.run(one_turn(*sys.argv[1:]))
        return
    sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools")]
    from servers.rabbitmq import start_rabbitmq  # noqa: PLC0415 - the tests' broker; the turns do without

    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name:
        url, stop = start_rabbitmq(Path(name) / "rabbitmq")
        try:
            turns = asyncio.run(measure(url))
        finally:
            stop()
    rate = {kind: statistics.median(EVENTS / turn["wall"] for turn in turns[kind]) for kind in KINDS}
    cpu = {kind: statistics.median(turn["cpu"] / EVENTS * 1e6 for turn in turns[kind]) for kind in KINDS}
    # Neighbours in time are compared with each other: what else the machine does hits both.
    ratio = {
        kind: statistics.median(b["wall"] / w["wall"] for w, b in zip(turns["worker"], turns[kind], strict=True))
        for kind in KINDS
    }
    table(
        ["loop", "events/s (median)", "all runs", "CPU µs/event", "worker's rate / its rate"],
        [
            [
                kind,
                f"{rate[kind]:.0f}",
                ", ".join(f"{EVENTS / turn['wall']:.0f}" for turn in turns[kind]),
                f"{cpu[kind]:.0f}",
                f"{ratio[kind]:.1%}",
            ]
            for kind in KINDS
        ],
    )
    figures: dict[str, object] = {
        **{f"{kind}_events_per_second": round(rate[kind]) for kind in KINDS},
        **{f"{kind}_cpu_us_per_event": round(cpu[kind]) for kind in KINDS},
        "ratio_to_bare_json": round(ratio["bare+JSON"], 4),
        "events": EVENTS,
        "prefetch": PREFETCH,
        "runs": RUNS,
    }
    end("bus", {"worker_to_bare": Aim(ratio["bare"], 0.8, at_most=False)}, figures)


if __name__ == "__main__":
    main()
