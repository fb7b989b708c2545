"""Files that the system sends: whole or cut, whoever reads them and however slowly."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import socket
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from integration.gateway_kit import eventually
from unit.gateway.serving import serving
from voxelmill_gateway import sending
from voxelmill_gateway.connection import Connection
from voxelmill_gateway.sending import Files, Sender
from voxelmill_gateway.streaming import Stream
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.storage.extent import Extent

MIB = 1 << 20
SIZES = (1, 300_000, 5 * MIB + 17, 0, 2)


@pytest.fixture
def files(tmp_path):
    """Make files of those sizes."""
    drawn = random.Random(3)
    paths = [tmp_path / str(number) for number, _ in enumerate(SIZES)]
    for path, size in zip(paths, SIZES, strict=True):
        path.write_bytes(drawn.randbytes(size))
    return paths


def extent(path):
    return Extent(os.open(path, os.O_RDONLY), 0, path.stat().st_size)


def pieces(paths):
    for path in paths:
        yield f"--{path.name}\r\n".encode()
        yield extent(path)


def body_of(paths):
    return b"".join(f"--{path.name}\r\n".encode() + path.read_bytes() for path in paths)


def answering(made, length=None):
    """Make an application whose answer is what `made` gives."""
    app = FastAPI()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def give():
        return Stream(made(), headers={"Content-Length": str(length)} if length is not None else None)

    return app


def all_of(paths):
    async def made():
        yield b"begin "
        yield Files(len(body_of(paths)), pieces(paths))
        yield b" end"

    return made


@pytest.mark.parametrize("sends", [True, False])
@pytest.mark.parametrize("has_length", [True, False])
async def test_files_come_as_they_are(files, sends, has_length, monkeypatch):
    """Twice over one connection, with a length and in chunks, also from a file system that cannot send."""
    asked, real = [], os.sendfile

    def sendfile(connection, file, start, count):
        asked.append(count)
        if not sends:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(connection, file, start, count)

    monkeypatch.setattr("os.sendfile", sendfile)
    expected = b"begin " + body_of(files) + b" end"
    app = answering(all_of(files), len(expected) if has_length else None)
    async with serving(app, http=Connection) as address, httpx.AsyncClient(base_url=address) as client:
        for _ in range(2):
            answer = await client.get("/")
            assert ("content-length" in answer.headers) == has_length
            assert answer.content == expected
        assert (await client.head("/")).content == b""
        assert (await client.get("/")).content == expected
    assert max(asked) <= 4 * MIB  # a client that takes all that comes holds no thread for long
    assert open_files(files) == 0


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EPIPE, errno.EIO])
async def test_a_network_or_disk_that_is_lost_is_no_traceback(files, number, monkeypatch, caplog):
    """The answer is cut; of the disk the log has a line."""

    def lost(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.sendfile", lost)
    app = answering(all_of(files), len(body_of(files)) + 10)
    async with serving(app, http=Connection) as address, httpx.AsyncClient(base_url=address) as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get("/")
    assert [record for record in caplog.records if record.exc_info] == []
    assert open_files(files) == 0


async def test_slow_readers_hold_up_nobody(files):
    """More of them than there are threads: what needs a thread gets one, and each has all of it in the end."""
    expected = b"begin " + body_of(files) + b" end"
    async with serving(answering(all_of(files), len(expected)), http=Connection) as address:
        readers = [await slow_reader(address) for _ in range(40)]
        await asyncio.sleep(0.2)  # the buffers fill up; were they not full, the test would show less, not fail
        await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(len, b"") for _ in range(100))), 5)
        for reader, writer in readers:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert hashlib.sha256(body).digest() == hashlib.sha256(expected).digest()
            writer.close()
            await writer.wait_closed()


async def slow_reader(address):
    """Ask, and read next to nothing: the system holds little for such a connection, and so does its other end."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    host, port = address.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(made, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=made, limit=4096)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return reader, writer


async def test_a_client_that_goes_away_leaves_nothing_open(files, monkeypatch):
    """Whether it has read a part, or nothing."""
    monkeypatch.setattr(sending, "_LOOK_SECONDS", 0.05)
    many = files * 20
    async with serving(answering(all_of(many), len(body_of(many)) + 10), http=Connection) as address:
        for _ in range(3):
            _, writer = await slow_reader(address)
            await eventually(lambda: opened(many))
            writer.transport.abort()
            await eventually(lambda: closed(many))


async def opened(paths):
    return open_files(paths) > 0


async def closed(paths):
    return open_files(paths) == 0


def open_files(paths):
    """Count the handles of this process on some files."""
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        try:
            found += handle.readlink() in paths
        except FileNotFoundError:
            continue
    return found


async def test_who_is_cancelled_again_and_again_waits_for_the_thread(files):
    """A handle that is closed under a thread may be another client's when the thread writes to it."""
    let, begun = threading.Event(), threading.Event()

    def waiting():
        begun.set()
        let.wait(10)
        yield from pieces(files)

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        sending_all = asyncio.create_task(
            Sender(ours.fileno(), Files(len(body_of(files)), waiting()), lambda: False).send()
        )
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            sending_all.cancel()
            await asyncio.sleep(0.01)
            assert not sending_all.done()
        let.set()
        with pytest.raises(asyncio.CancelledError):
            await sending_all
        ours.close()
        assert theirs.recv(100) == b""
    assert open_files(files) == 0


@pytest.mark.parametrize("fault", ["gone", "short", "long", "changed"])
@pytest.mark.parametrize("has_length", [True, False])
async def test_what_cannot_be_sent_to_its_end_is_cut(files, fault, has_length):
    """A file that is gone when its turn comes, one that is cut meanwhile or longer than said, and one that is changed."""
    length = len(body_of(files))

    def faulty():
        yield from pieces(files[:2])
        if fault == "gone":
            raise ObjectMissingError("chest/3.dcm")
        last = extent(files[2])
        if fault == "short":
            os.truncate(files[2], MIB)
        elif fault == "changed":
            with files[2].open("r+b") as file:
                file.write(b"another")
        else:
            last.length += MIB
            with files[2].open("ab") as file:
                file.write(bytes(MIB))
        yield last
        yield from pieces(files[3:])

    async def made():
        yield Files(length, faulty())

    app = answering(made, length if has_length else None)
    async with serving(app, http=Connection) as address, httpx.AsyncClient(base_url=address) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
    assert open_files(files) == 0
