"""What a folder adds: files go on where they stopped, whatever stopped them."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from unit.gateway.uploads.kit import DICOM, Client, stored, told, until
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_shared.errors import BrokerUnavailableError
from voxelmill_shared.parts import open_parts
from voxelmill_shared.transport.topology import TOPOLOGY

BODY = bytes(range(256)) * 4096


@pytest.fixture
def kind():
    """Only the folder."""
    return "folder"


async def send_and_hang_up(client, begun, number, sent, announced):
    """Send some bytes of a file and hang up."""
    url = client.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"PUT /uploads/{begun['upload_id']}/files/{number} HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {announced}\r\n\r\n"
    writer.write(head.encode() + sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    del reader


async def test_a_disk_that_is_full_says_so_and_the_file_goes_on_when_there_is_room(client, monkeypatch):
    """What has come stays; the client need not wonder whether to try again at once."""
    begun = await client.begin(BODY)
    real, room = os.write, [300_000]

    def full(handle, piece):
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(handle, piece[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr("voxelmill_shared.storage.local_partial.os.write", full)
        answer = await client.send(begun, 0, BODY)
    assert (answer.status_code, answer.json()["title"]) == (507, "No room")
    assert answer.json()["detail"].endswith("No space left on device; make room there, and go on")
    total, (offset, _) = len(BODY), await client.offset(begun, 0)
    assert offset == 300_000
    rest = await client.send(begun, 0, BODY[offset:], **{"Content-Range": f"bytes {offset}-{total - 1}/{total}"})
    assert (rest.status_code, rest.headers["upload-complete"]) == (204, "?1")


async def test_a_client_that_hangs_up_goes_on_where_it_was(client, gateway):
    """What came before is kept; HEAD says how much; the rest makes the file, and other places are refused."""
    begun = await client.begin(BODY)
    await send_and_hang_up(client, begun, 0, BODY[:700_000], len(BODY))

    async def has_come():
        return (await client.offset(begun, 0))[0] or None

    offset = await until(has_come)
    assert 0 < offset <= 700_000
    total = len(BODY)
    wrong = await client.send(begun, 0, BODY[5:], **{"Content-Range": f"bytes 5-{total - 1}/{total}"})
    assert wrong.status_code == 409
    offset = int(wrong.headers["upload-offset"])
    assert (await client.state(begun))["files"][0]["received"] == offset
    middle = offset + 1000
    part = await client.send(begun, 0, BODY[offset:middle], **{"Content-Range": f"bytes {offset}-{middle - 1}/{total}"})
    assert (part.status_code, part.headers["upload-offset"], part.headers["upload-complete"]) == (
        204,
        str(middle),
        "?0",
    )
    rest = await client.send(begun, 0, BODY[middle:], **{"Content-Range": f"bytes {middle}-{total - 1}/{total}"})
    assert (rest.status_code, rest.headers["upload-complete"]) == (204, "?1")
    await client.complete(begun)
    assert await gateway.stores.inbox.read(f"uploads/{begun['upload_id']}/000000.dcm") == BODY


@pytest.mark.parametrize(
    "header", ["bytes 0-9/11", "bytes 5-4/10", "bytes 0-10/10", "0-9/10", "bytes */10", "bytes 0-9/*", "chunks 0-9/10"]
)
async def test_a_content_range_that_makes_no_sense(client, header):
    """400, and nothing comes."""
    begun = await client.begin(bytes(10))
    answer = await client.send(begun, 0, bytes(10), **{"Content-Range": header})
    assert (answer.status_code, await client.offset(begun, 0)) == (400, (0, False))


async def test_killed_before_the_file_was_in_its_place(client, gateway):
    """All bytes had come when the gateway was killed: whoever looks next puts the file into its place."""
    begun = await client.begin(DICOM)
    key = f"uploads/{begun['upload_id']}/000000.dcm"
    async with gateway.stores.inbox.partial(key).writing(0) as writer:
        await writer.write(DICOM)
    assert await client.offset(begun, 0) == (len(DICOM), True)
    await client.complete(begun)
    assert await gateway.stores.inbox.read(key) == DICOM


async def test_killed_before_the_row_said_that_it_is_done(client, gateway):
    """The file stands, and its row does not say so: completing looks for itself."""
    begun = await client.begin(DICOM)
    await gateway.stores.inbox.write(f"uploads/{begun['upload_id']}/000000.dcm", DICOM)
    assert (await client.state(begun))["files"][0]["done"]
    await client.complete(begun)


class Away:
    """A broker that is away, and says so."""

    def __init__(self, transport):
        self._transport = transport

    def __getattr__(self, name):
        return getattr(self._transport, name)

    async def publish(self, messages):
        raise BrokerUnavailableError("the broker does not answer")


async def test_killed_between_the_row_and_the_broker(client, gateway, settings):
    """The answer is out and the broker has nothing: the next gateway publishes it from the outbox."""
    gateway.relay._transport = Away(gateway.transport)
    await gateway.transport.declare(TOPOLOGY)
    begun = await client.begin(DICOM, DICOM)
    for number in (0, 1):
        await client.send(begun, number, DICOM)
    await client.complete(begun)
    objects, ends = await told(gateway)
    assert (len(objects), len(ends)) == (2, 1)
    async with open_parts(settings) as parts, open_gateway(parts, settings) as after:

        async def published():
            return not await after.relay.pending()

        await until(published)
        async with serve(after, "127.0.0.1", 0) as port, Client(f"http://127.0.0.1:{port}").http as http:
            again = await http.post(f"/uploads/{begun['upload_id']}/complete")
            assert (again.status_code, again.json()["state"]) == (202, "complete")
        assert await told(after) == ([], [])


async def test_no_room(client, gateway, monkeypatch):
    """A disk that cannot hold what is to come is not filled with half of it."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5 << 20})())
    problem = await client.ask("POST", "/uploads", 507, json={"files": [{"size": 6 << 20}]})
    assert "5 MiB" in problem["detail"]
    assert await stored(gateway.stores.inbox) == {}


async def test_folder_out_of_reach(client, tmp_path):
    """503 with the next step, and nothing is lost: the same requests work when the store is back."""
    begun = await client.begin(DICOM)
    inbox = tmp_path / "inbox"
    inbox.rename(tmp_path / "away")
    inbox.write_text("no folder")
    refused = await client.send(begun, 0, DICOM)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    inbox.unlink()
    (tmp_path / "away").rename(inbox)
    assert (await client.send(begun, 0, DICOM)).status_code == 204
    await client.complete(begun)
