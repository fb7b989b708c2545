"""Clients that never come to the point, and requests that say in two ways where they end."""

from __future__ import annotations

import asyncio

import pytest

from voxelmill_gateway.access import bodies
from voxelmill_gateway.connection import Connection

HEAD = b"Host: localhost\r\n"
A_WHILE = 0.2


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Wait for a moment only."""
    monkeypatch.setattr(Connection, "seconds", A_WHILE)
    monkeypatch.setattr(bodies, "BODY_SECONDS", A_WHILE)


@pytest.fixture
def connect(address):
    host, port = address.removeprefix("http://").split(":")
    return lambda: asyncio.open_connection(host, int(port))


async def answers(reader) -> list[bytes]:
    """Read until the gateway closes the connection; give the statuses of what it has answered."""
    try:
        said = await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return []
    return [line.split()[1] for line in said.split(b"\r\n") if line.startswith(b"HTTP/")]


@pytest.mark.parametrize(
    ("first", "statuses"),
    [
        (b"", []),
        (b"GET /healthz HTTP/1.1\r\n" + HEAD, []),
        (b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\nGET /healthz HTTP/1.1\r\n", [b"200"]),
        (b"POST /nowhere HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000\r\n\r\n", [b"404"]),
        (b"POST /process HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n", [b"408"]),
    ],
    ids=["silent", "a head", "a second head", "a body that nobody reads", "a body"],
)  # fmt: skip
async def test_who_drips_is_let_go(connect, first, statuses):
    """A byte now and then keeps no connection open."""
    reader, writer = await connect()
    writer.write(first)

    async def drip():
        while not writer.is_closing():
            writer.write(b"a")
            await asyncio.sleep(A_WHILE / 10)

    dripping = asyncio.create_task(drip() if first else asyncio.sleep(0))
    try:
        found = await answers(reader)
    finally:
        dripping.cancel()
        writer.close()
    assert found in (statuses, [])  # what was on its way may be lost where bytes meet a closed connection


async def test_an_answer_that_takes_long_is_not_cut(connect):
    """What is bounded is how long a request takes to come, not how long its answer does."""
    reader, writer = await connect()
    writer.write(b"GET /events?wait=%.1f HTTP/1.1\r\n" % (3 * A_WHILE) + HEAD + b"Connection: close\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 10)
    assert said.endswith(b"0\r\n\r\n")  # the last chunk
    writer.close()


async def test_a_request_with_two_ends_is_refused_with_all_that_follows(connect):
    """A proxy that goes by the other length would give the second answer to somebody else."""
    reader, writer = await connect()
    writer.write(
        b"POST /process HTTP/1.1\r\n" + HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n"
    )
    assert await answers(reader) == [b"400"]
    writer.close()


async def test_what_is_no_request_is_no_line_of_the_log(connect, capsys, caplog):
    """Else anybody fills the disk."""
    reader, writer = await connect()
    writer.write(b"\x16\x03\x01 no request\r\n\r\n")
    assert await answers(reader) == [b"400"]
    writer.close()
    assert (caplog.text, capsys.readouterr().err) == ("", "")
