"""WADO-RS: frames and bulk data (PS3.18 10.4.1.1.4 and 10.4.1.1.5)."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.dicomweb.addresses import (
    INSTANCE,
    PREFIX,
    Frames,
    Series,
    Sop,
    Study,
    caching,
    described,
    etag_of,
    fresh,
    service_of,
)
from voxelmill_gateway.dicomweb.ahead import ahead
from voxelmill_gateway.dicomweb.content import (
    BYTES_AHEAD,
    END,
    READS_AHEAD,
    Multipart,
    ranges_of,
)
from voxelmill_gateway.dicomweb.headers import unreadable
from voxelmill_gateway.dicomweb.instances import find_one
from voxelmill_gateway.dicomweb.negotiation import (
    EXPLICIT,
    MULTIPART,
    OCTETS,
    accepted,
    form_of,
    frame_type,
    not_acceptable,
    typed,
)
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem, not_found
from voxelmill_gateway.streaming import Stream, begun
from voxelmill_gateway.task import ReadBulk, ReadFrames
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from voxelmill_gateway.dicomweb.instances import Instance
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_gateway.task import Header

router = APIRouter(prefix=PREFIX, tags=["dicomweb"])

_PARTS: Final = (f'{MULTIPART}; type="{OCTETS}"', OCTETS)
_PIXELS: Final = frozenset({"7FE00008", "7FE00009", "7FE00010"})
_BATCH_BYTES: Final = 16 << 20
"""How many bytes of frames a child gives at a time."""
_BATCHES_AHEAD: Final = 2
Element = Annotated[
    str,
    Path(
        pattern=r"^[0-9A-Fa-f]{8}(/[0-9]{1,6}/[0-9A-Fa-f]{8}){0,16}$",
        description="a tag; in sequences, tags with the number of the item, from 0, between them",
    ),
]


@router.get(f"{INSTANCE}/frames/{{frames}}", **described("Frames of an instance", "retrieve_frames", *_PARTS))
async def retrieve_frames(
    study: Study, series: Series, sop: Sop, frames: Frames, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Give frames by their numbers from 1: decoded, or as they are stored, by what the client accepts."""
    instance = await find_one(gate, caller, study, series, sop)
    header = await gate.headers.one(instance)
    numbers = numbers_of(frames, instance, header.frames)
    return await _answer(request, gate, instance, header, numbers)


@router.get(
    f"{INSTANCE}/bulkdata/{{element:path}}", **described("The value of an element", "retrieve_bulkdata", *_PARTS)
)
async def retrieve_bulkdata(
    study: Study, series: Series, sop: Sop, element: Element, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Give the value of a binary element that the metadata refer to; of pixel data, every frame."""
    instance = await find_one(gate, caller, study, series, sop)
    header = await gate.headers.one(instance)
    if element.upper() in _PIXELS:
        return await _answer(request, gate, instance, header, range(header.frames))
    ranges = accepted(request)
    if not any(found.covers(OCTETS) for found in ranges):
        raise not_acceptable(f"it is there as {OCTETS}")
    with gate.scratch.folder("dicomweb") as folder:
        path = await instance.fetch(gate.stores, folder)
        try:
            value = await gate.children.call(ReadBulk(path, tuple(element.upper().split("/"))))
        except UnsupportedSeriesError as error:
            raise unreadable(instance, error) from None
    if value is None:
        raise not_found(f"{sop}, element {element}")
    label = typed(OCTETS, EXPLICIT)
    if not form_of(ranges, OCTETS, several=False):
        return Response(value, media_type=label)
    body = Multipart()
    head = body.head(label, len(value), f"{service_of(request)}{instance.path}/bulkdata/{element}")
    return Response(b"".join((head, value, END, body.closing)), media_type=body.media_type(OCTETS))


def numbers_of(frames: str, instance: Instance, there: int) -> list[int]:
    """Return frames' numbers, from 0.

    Raises
    ------
    Problem
        404 if there is no such frame.
    """
    numbers = [int(number) - 1 for number in frames.split(",")]
    if any(not 0 <= number < there for number in numbers):
        raise Problem(404, "Not found", f"{instance.sop}: it has {there} frames, numbered from 1")
    return numbers


async def _answer(
    request: Request, gate: Gateway, instance: Instance, header: Header, numbers: Sequence[int]
) -> Response:
    ranges = accepted(request)
    label = frame_type(ranges, instance.transfer_syntax, compressed=header.compressed, decodable=instance.decodable)
    if label is None:
        raise not_acceptable(
            f'{instance.sop}: stored as {instance.transfer_syntax}; ask for {MULTIPART}; type="{OCTETS}" with '
            "transfer-syntax=*"
        )
    media_type = label.partition(";")[0]
    several = form_of(ranges, media_type, several=len(numbers) > 1)
    etag = etag_of(instance.content, list(numbers), label, several)
    if (known := fresh(request, etag)) is not None:
        return known
    if label.endswith(f"={EXPLICIT}") and header.offset is not None:
        frames = _native(gate, instance, header, numbers)
    else:
        frames = _from_child(gate, instance, header, numbers, decode=label.endswith(f"={EXPLICIT}"))
    if not several:
        return Stream(await begun(_single(frames)), headers=caching(etag), media_type=label)
    body = Multipart()
    pieces = _parts(body, label, frames, f"{service_of(request)}{instance.path}/frames")
    return Stream(await begun(pieces), headers=caching(etag), media_type=body.media_type(media_type))


async def _single(frames: AsyncGenerator[tuple[int, int, bytes], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(frames):
        async for _, _, piece in frames:
            yield piece


async def _parts(
    body: Multipart, label: str, frames: AsyncGenerator[tuple[int, int, bytes], None], location: str
) -> AsyncGenerator[bytes, None]:
    end = b""
    async with aclosing(frames):
        async for number, length, piece in frames:
            if length:  # a frame begins
                yield end + body.head(label, length, f"{location}/{number + 1}")
                end = END
            yield piece
    yield end + body.closing


async def _native(
    gate: Gateway, instance: Instance, header: Header, numbers: Sequence[int]
) -> AsyncGenerator[tuple[int, int, bytes], None]:
    """Give frames whose bytes lie in the file as they are to be given; with the first piece of each, its length."""
    size, offset = header.frame_bytes, header.offset or 0
    pieces = [
        (number, size if start == offset + number * size else 0, start, length)
        for number in numbers
        for start, length in ranges_of(offset + number * size, size)
    ]
    calls = [(length, partial(instance.read, gate.stores, start, length)) for _, _, start, length in pieces]
    async with aclosing(ahead(calls, most=READS_AHEAD, weight=BYTES_AHEAD)) as read:
        place = 0
        async for piece in read:
            number, length, _, _ = pieces[place]
            place += 1
            yield number, length, piece


async def _from_child(
    gate: Gateway, instance: Instance, header: Header, numbers: Sequence[int], *, decode: bool
) -> AsyncGenerator[tuple[int, int, bytes], None]:
    """Give frames that must be found, or decoded, first; each is one piece, with its length."""
    count = max(1, _BATCH_BYTES // max(1, header.frame_bytes))
    batches = [tuple(numbers[start : start + count]) for start in range(0, len(numbers), count)]
    with gate.scratch.folder("dicomweb") as folder:
        path = await instance.fetch(gate.stores, folder)
        calls = [(1, partial(gate.children.call, ReadFrames(path, batch, decode))) for batch in batches]
        place = 0
        async with aclosing(ahead(calls, most=_BATCHES_AHEAD, weight=_BATCHES_AHEAD)) as read:
            try:
                async for frames in read:
                    for frame in frames:
                        yield numbers[place], len(frame), frame
                        place += 1
            except UnsupportedSeriesError as error:
                raise unreadable(instance, error) from None
