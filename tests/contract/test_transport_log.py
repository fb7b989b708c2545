"""What a service logs when its broker goes away and comes back: one line for each event, each one JSON object."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from contract.cable import Cable
from contract.transport_kit import SOON
from e2e.processes import wait_until_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.rabbitmq


class Lines:
    """What a process writes, line by line."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.seen: list[str] = []

    async def until(self, event: str) -> dict[str, Any]:
        """Return the next line that tells of an event."""
        async with asyncio.timeout(60):
            while line := (await self._stream.readline()).decode():
                self.seen.append(line)
                entry: dict[str, Any] = json.loads(line)
                if entry["event"] == event:
                    return entry
        raise AssertionError(f"no {event!r} in {self.seen}")


@pytest.fixture
async def cable(rabbitmq_vhost_url: str) -> AsyncIterator[Cable]:
    """Lay a cable to the broker."""
    async with Cable(aio_pika.connection.make_url(rabbitmq_vhost_url)).laid() as cable:
        yield cable


async def test_an_outage_of_the_broker_is_told_once(cable: Cable, tmp_path: Path) -> None:
    """That the subscription is lost, that it cannot be made again, that it stands again; nothing from the library."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voxelmill_mesh",
        env={
            **os.environ,
            "VOXELMILL_BROKER_URL": cable.url,
            **{f"VOXELMILL_{role}_URL": str(tmp_path / role.lower()) for role in ("INBOX", "WORK", "RESULTS")},
            "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    lines = Lines(process.stderr)
    try:
        serving = await lines.until("serving")
        await asyncio.to_thread(wait_until_ready, {"mesh": serving["port"]})
        cable.plugged_in = False
        cable.cut()
        lost = await lines.until("subscription lost, subscribing again")
        assert lost["reason"] != "ended"
        until = time.monotonic() + SOON
        while cable.refused < 4:
            assert time.monotonic() < until, "it does not try again"
            await asyncio.sleep(0.05)
        cable.plugged_in = True
        await lines.until("subscribed again")
        process.send_signal(signal.SIGTERM)
        await lines.until("stopped")
        assert not await process.stderr.read()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    entries = [json.loads(line) for line in lines.seen]
    assert [entry["event"] for entry in entries] == [
        "serving",
        "subscription lost, subscribing again",
        "not subscribed, trying again",
        "subscribed again",
        "stopped",
    ], lines.seen
