"""The bytes of instances on their way to a client: as they are stored, or decoded first.

Files of a local store are sent by the system (`sending`). What another store gives is read in pieces, the next ones
while the first is being sent, and they go to the connection as they are.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.dicomweb.ahead import ahead
from voxelmill_gateway.dicomweb.headers import unreadable
from voxelmill_gateway.dicomweb.negotiation import DICOM, MULTIPART, typed
from voxelmill_gateway.sending import Files
from voxelmill_gateway.task import Transcode
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from pathlib import Path

    from voxelmill_gateway.dicomweb.instances import Instance
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_shared.storage.extent import Extent

PIECE: Final = 4 << 20
"""The most bytes that are read at a time."""
READS_AHEAD: Final = 8
BYTES_AHEAD: Final = 16 << 20
"""How many reads are under way, or wait to be sent, for one answer, and how many bytes they may be together."""
DECODED_AHEAD: Final = 2
"""How many instances are decoded, or wait to be sent."""
END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """An instance as it is to be given: in its own transfer syntax, or in Explicit VR Little Endian."""

    instance: Instance
    transfer_syntax: str

    @property
    def stored(self) -> bool:
        """Whether its bytes are those of the store."""
        return self.transfer_syntax == self.instance.transfer_syntax

    @property
    def media_type(self) -> str:
        """Its media type."""
        return typed(DICOM, self.transfer_syntax)


class Multipart:
    """What stands between the parts of a multipart body (RFC 2046, 5.1.1)."""

    def __init__(self) -> None:
        self.boundary = secrets.token_hex(16)
        self.closing = f"--{self.boundary}--\r\n".encode()

    def media_type(self, of_parts: str) -> str:
        """Return the media type of the body (RFC 2387)."""
        return f'{MULTIPART}; type="{of_parts}"; boundary={self.boundary}'

    def head(self, media_type: str, length: int | None = None, location: str = "") -> bytes:
        """Return what stands before a part."""
        lines = [f"--{self.boundary}", f"Content-Type: {media_type}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if location:
            lines.append(f"Content-Location: {location}")
        return "\r\n".join([*lines, "", ""]).encode()


def ranges_of(start: int, length: int) -> Iterator[tuple[int, int]]:
    """Divide a range into pieces: where each begins, and its length."""
    for first in range(start, start + length, PIECE):
        yield first, min(PIECE, start + length - first)


async def stored_bytes(gate: Gateway, instance: Instance) -> AsyncGenerator[bytes | Files, None]:
    """Give an instance as it is stored."""
    if (files := await _files(gate, [(b"", instance)])) is not None:
        yield files
        return
    calls = [
        (length, partial(instance.read, gate.stores, start, length)) for start, length in ranges_of(0, instance.size)
    ]
    async with aclosing(ahead(calls, most=READS_AHEAD, weight=BYTES_AHEAD)) as pieces:
        async for piece in pieces:
            yield piece


async def _files(gate: Gateway, parts: Sequence[tuple[bytes, Instance]]) -> Files | None:
    """Return objects, each with what stands before it, as files; none unless all of them are. The first is opened."""
    found = [(one, store) for _, one in parts if isinstance(store := one.store(gate.stores), LocalStore)]
    if not found or len(found) < len(parts):
        return None
    first = await asyncio.to_thread(found[0][0].open, found[0][1])

    def pieces() -> Iterator[bytes | Extent]:
        opened: Extent | None = first
        for (before, _), (instance, store) in zip(parts, found, strict=True):
            if before:
                yield before
            yield opened or instance.open(store)
            opened = None

    return Files(sum(len(before) + one.size for before, one in parts), pieces())


def stored_heads(body: Multipart, parts: Sequence[Part], service: str) -> list[bytes]:
    """Return what stands before each of the parts whose bytes are those of the store, and behind the last."""
    heads = [_head(body, part, part.instance.size, service) for part in parts]
    return [*(END + head if number else head for number, head in enumerate(heads)), END + body.closing]


async def stored_parts(
    gate: Gateway, heads: Sequence[bytes], parts: Sequence[Part]
) -> AsyncGenerator[bytes | Files, None]:
    """Give the body of parts whose bytes are those of the store: several objects are read ahead."""
    *before_each, last = heads
    in_order = list(zip(before_each, (part.instance for part in parts), strict=True))
    if (files := await _files(gate, in_order)) is not None:
        yield files
        yield last
        return

    async def read(before: bytes, instance: Instance, start: int, length: int) -> tuple[bytes, bytes]:
        return before, await instance.read(gate.stores, start, length)

    calls = (
        (length, partial(read, b"" if start else before, instance, start, length))
        for before, instance in in_order
        for start, length in ranges_of(0, instance.size)
    )
    async with aclosing(ahead(calls, most=READS_AHEAD, weight=BYTES_AHEAD)) as pieces:
        async for before, piece in pieces:
            if before:
                yield before
            yield piece
    yield last


async def decoded_parts(
    gate: Gateway, body: Multipart, parts: Sequence[Part], service: str
) -> AsyncGenerator[bytes | Files, None]:
    """Give the body of parts some of which are decoded first, a few ahead of the one that is sent."""
    with ExitStack() as stack:
        folder = stack.enter_context(gate.scratch.folder("dicomweb"))

        async def made(number: int, part: Part) -> Path | None:
            return None if part.stored else await decoded(gate, part.instance, folder / str(number))

        calls = [(1, partial(made, number, part)) for number, part in enumerate(parts)]
        number = 0
        async with aclosing(ahead(calls, most=DECODED_AHEAD, weight=DECODED_AHEAD)) as files:
            async for path in files:
                part = parts[number]
                number += 1
                size = part.instance.size if path is None else path.stat().st_size
                yield _head(body, part, size, service)
                source: AsyncGenerator[bytes | Files, None]
                source = stored_bytes(gate, part.instance) if path is None else file_bytes(path)
                async with aclosing(source) as pieces:
                    async for piece in pieces:
                        yield piece
                yield END
                if path is not None:
                    path.unlink()
        yield body.closing


async def decoded(gate: Gateway, instance: Instance, folder: Path) -> Path:
    """Write an instance in Explicit VR Little Endian and return the file.

    Raises
    ------
    Problem
        410 or 409 if the object is gone or replaced, 422 if it cannot be decoded.
    """
    path = await instance.fetch(gate.stores, folder / "in")
    output = folder / "decoded.dcm"
    try:
        await gate.children.call(Transcode(path, output))
    except UnsupportedSeriesError as error:
        raise unreadable(instance, error) from None
    if path.is_relative_to(folder):
        path.unlink()
    return output


async def decoded_bytes(gate: Gateway, instance: Instance) -> AsyncGenerator[bytes, None]:
    """Give an instance in Explicit VR Little Endian."""
    with gate.scratch.folder("dicomweb") as folder:
        async with aclosing(file_bytes(await decoded(gate, instance, folder))) as pieces:
            async for piece in pieces:
                yield piece


async def file_bytes(path: Path) -> AsyncGenerator[bytes, None]:
    """Give a file of our own."""
    file = await asyncio.to_thread(path.open, "rb", 0)
    try:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
    finally:
        file.close()


def _head(body: Multipart, part: Part, length: int, service: str) -> bytes:
    return body.head(part.media_type, length, f"{service}{part.instance.path}")
