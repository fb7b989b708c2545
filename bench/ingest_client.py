"""The client of the ingest benchmark, a process of its own: the same HTTP library and connections towards every server.

usage: ingest_client.py TEMPLATES, then one JSON object a line on standard input; each is answered by one line.

`TEMPLATES` is a pickle of `series_copies.Template`. A line is a phase:

- `{"phase": "put", "method", "urls", "name", "connections", "announce"}` sends copy after copy of the series, its
  instances to the URLs in their order; with `announce` each is announced as soon as it is stored;
- `{"phase": "announce"}` announces everything that the last phase has put.

To announce is to publish `object.uploaded`, confirmed, on the broker of VOXELMILL_BROKER_URL. The answer has the times
(monotonic, the same clock in every process of a machine) of the beginning and the end, and the CPU seconds between.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import aiohttp

from series_copies import Template, new_uid
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from voxelmill_shared.transport.base import Transport

_PUBLISHERS = 32


class Client:
    """Puts and announces."""

    def __init__(self, templates: list[Template], transport: Transport | None) -> None:
        self._templates = templates
        self._transport = transport
        self._stored: list[ObjectRef] = []

    async def put(self, phase: dict[str, Any]) -> None:
        """Send every instance once; the first that is refused ends the benchmark."""
        self._stored = []
        numbered = enumerate(phase["urls"])
        limit = phase["connections"]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session:
            await asyncio.gather(*(self._send(session, phase, numbered) for _ in range(limit)))

    async def _send(self, session: aiohttp.ClientSession, phase: dict[str, Any], numbered: Any) -> None:
        for number, url in numbered:
            copy, place = divmod(number, len(self._templates))
            name = f"{phase['name']}-{copy}"
            body = self._templates[place].copy(
                new_uid(name, "study"), new_uid(name, "series"), new_uid(name, "instance", place)
            )
            async with session.request(phase["method"], url, data=body) as answer:
                text = await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{urlsplit(url).path}: {answer.status} {text[:300]!r}")
                etag = answer.headers.get("ETag", "").strip('"')
            key = unquote(urlsplit(url).path).split("/inbox/", 1)[-1]
            stored = ObjectRef(bucket="inbox", key=key, etag=etag, size=len(body))
            if phase["announce"]:
                await self._publish(stored)
            else:
                self._stored.append(stored)

    async def announce(self) -> None:
        """Announce everything that was put, and was not announced then."""
        left = iter(self._stored)

        async def publish() -> None:
            for stored in left:
                await self._publish(stored)

        await asyncio.gather(*(publish() for _ in range(_PUBLISHERS)))

    async def _publish(self, stored: ObjectRef) -> None:
        if self._transport is None:
            raise SystemExit("VOXELMILL_BROKER_URL is not set: there is nobody to announce to")
        envelope = Envelope.wrap(ObjectUploaded(object=stored, found_by="notification"), "bench")
        await self._transport.publish([Message(envelope.encode(), envelope.routing_key, str(envelope.id))])


async def main(templates: list[Template]) -> None:
    """Do phase after phase, until there are no more."""
    broker = os.environ.get("VOXELMILL_BROKER_URL")
    transport = open_transport(broker) if broker else None
    client = Client(templates, transport)
    while line := await asyncio.to_thread(sys.stdin.readline):
        phase = json.loads(line)
        begun, spent = time.monotonic(), time.process_time()
        await (client.put(phase) if phase["phase"] == "put" else client.announce())
        answer = {"begun": begun, "ended": time.monotonic(), "cpu_seconds": time.process_time() - spent}
        print(json.dumps(answer), flush=True)
    if transport is not None:
        await transport.close()


if __name__ == "__main__":
    asyncio.run(main(pickle.loads(Path(sys.argv[1]).read_bytes())))  # noqa: S301 - the benchmark has written it
