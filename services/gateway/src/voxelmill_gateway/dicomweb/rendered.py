"""WADO-RS: pictures of studies, series, instances and frames (PS3.18 10.4.1.1.3), and thumbnails (10.4.1.1.7)."""

from __future__ import annotations

import math
import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.dicomweb.addresses import (
    INSTANCE,
    PREFIX,
    SERIES,
    STUDY,
    Frames,
    Series,
    Sop,
    Study,
    caching,
    described,
    etag_of,
    fresh,
    senseless,
    service_of,
)
from voxelmill_gateway.dicomweb.ahead import ahead
from voxelmill_gateway.dicomweb.content import END, Multipart
from voxelmill_gateway.dicomweb.frames import numbers_of
from voxelmill_gateway.dicomweb.headers import unreadable
from voxelmill_gateway.dicomweb.instances import find
from voxelmill_gateway.dicomweb.negotiation import MULTIPART, accepted, not_acceptable, picture_type
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.streaming import Stream, begun
from voxelmill_gateway.task import Draw, Viewport
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from voxelmill_gateway.dicomweb.instances import Instance
    from voxelmill_gateway.gateway import Gateway

router = APIRouter(prefix=PREFIX, tags=["dicomweb"])

MEDIA_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
"""What pictures are given as; the first where the client does not mind (PS3.18 Table 8.7.4-1)."""
_LONGEST_SIDE: Final = 8192
_DRAWN_AHEAD: Final = 2
_THUMBNAIL: Final = "256,256"
_THUMBNAIL_QUALITY: Final = 82
_FUNCTIONS: Final = ("linear", "linear-exact", "sigmoid")
_NUMBER: Final = re.compile(r"[+-]?(\d{1,12}(\.\d{0,12})?|\.\d{1,12})([eE][+-]?\d{1,3})?\Z")

Window = Annotated[
    str | None,
    Query(max_length=80, description="centre,width,function; the function is linear, linear-exact or sigmoid"),
]
View = Annotated[
    str | None,
    Query(max_length=160, description="width,height of the picture, and x,y,width,height of the part that it shows"),
]
Quality = Annotated[int, Query(ge=1, le=100, description="of JPEG and WebP")]


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is wanted. `window` is centre, width and function; `quality` 1 to 100, of JPEG and WebP."""

    window: tuple[float, float, str] | None
    viewport: Viewport | None
    quality: int


def _as_asked(window: Window = None, viewport: View = None, quality: Quality = 90) -> Look:
    return Look(window_of(window), viewport_of(viewport), quality)


def _as_thumbnail(viewport: View = _THUMBNAIL) -> Look:
    return Look(None, viewport_of(viewport), _THUMBNAIL_QUALITY)


AsAsked = Annotated[Look, Depends(_as_asked)]
AsThumbnail = Annotated[Look, Depends(_as_thumbnail)]


def _described(what: str, operation: str) -> dict[str, Any]:
    answers = described(what, operation, *MEDIA_TYPES)
    answers["responses"][400] = {"description": "A parameter makes no sense"}
    return answers


@router.get(f"{STUDY}/rendered", **_described("Pictures of a study", "render_study"))
async def render_study(
    study: Study,
    request: Request,
    gate: Gate,
    caller: Viewer,
    look: AsAsked,
) -> Response:
    """Give a picture of the middle instance; of every one where the client asks for a multipart body."""
    found = await find(gate, caller, study, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{SERIES}/rendered", **_described("Pictures of a series", "render_series"))
async def render_series(
    study: Study,
    series: Series,
    request: Request,
    gate: Gate,
    caller: Viewer,
    look: AsAsked,
) -> Response:
    """Give a picture of the middle instance; of every one where the client asks for a multipart body."""
    found = await find(gate, caller, study, series, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{INSTANCE}/rendered", **_described("A picture of an instance", "render_instance"))
async def render_instance(
    study: Study,
    series: Series,
    sop: Sop,
    request: Request,
    gate: Gate,
    caller: Viewer,
    look: AsAsked,
) -> Response:
    """Give a picture of an instance: of its middle frame, if it has several."""
    found = await find(gate, caller, study, series, sop, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{INSTANCE}/frames/{{frames}}/rendered", **_described("Pictures of frames", "render_frames"))
async def render_frames(
    study: Study,
    series: Series,
    sop: Sop,
    frames: Frames,
    request: Request,
    gate: Gate,
    caller: Viewer,
    look: AsAsked,
) -> Response:
    """Give pictures of frames by their numbers from 1."""
    found = await find(gate, caller, study, series, sop, action="rendered")
    numbers = numbers_of(frames, found[0], max(1, found[0].frames))
    return await _pictures(request, gate, found, numbers, look)


@router.get(f"{STUDY}/thumbnail", **_described("A small picture of a study", "study_thumbnail"))
async def study_thumbnail(study: Study, request: Request, gate: Gate, caller: Viewer, look: AsThumbnail) -> Response:
    """Give a small picture of the middle instance."""
    found = await find(gate, caller, study, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{SERIES}/thumbnail", **_described("A small picture of a series", "series_thumbnail"))
async def series_thumbnail(
    study: Study, series: Series, request: Request, gate: Gate, caller: Viewer, look: AsThumbnail
) -> Response:
    """Give a small picture of the middle instance."""
    found = await find(gate, caller, study, series, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{INSTANCE}/thumbnail", **_described("A small picture of an instance", "instance_thumbnail"))
async def instance_thumbnail(
    study: Study, series: Series, sop: Sop, request: Request, gate: Gate, caller: Viewer, look: AsThumbnail
) -> Response:
    """Give a small picture of an instance."""
    found = await find(gate, caller, study, series, sop, action="rendered")
    return await _pictures(request, gate, found, None, look)


@router.get(f"{INSTANCE}/frames/{{frames}}/thumbnail", **_described("Small pictures of frames", "frame_thumbnails"))
async def frame_thumbnails(
    study: Study,
    series: Series,
    sop: Sop,
    frames: Frames,
    request: Request,
    gate: Gate,
    caller: Viewer,
    look: AsThumbnail,
) -> Response:
    """Give small pictures of frames."""
    found = await find(gate, caller, study, series, sop, action="rendered")
    numbers = numbers_of(frames, found[0], max(1, found[0].frames))
    return await _pictures(request, gate, found, numbers, look)


async def _pictures(
    request: Request,
    gate: Gateway,
    found: Sequence[Instance],
    frames: Sequence[int] | None,
    look: Look,
) -> Response:
    media_type, multipart = picture_type(accepted(request), MEDIA_TYPES)
    if frames is not None:
        wanted: list[tuple[Instance, int | None]] = [(found[0], frame) for frame in frames]
        multipart = len(wanted) > 1 if multipart is None else multipart
        if len(wanted) > 1 and not multipart:
            raise not_acceptable(f'there are several; ask for {MULTIPART}; type="{media_type}"')
    elif multipart:
        wanted = [(instance, None) for instance in found]
    else:
        wanted = [(found[len(found) // 2], None)]
    etag = etag_of([(instance.content, frame) for instance, frame in wanted], media_type, look, bool(multipart))
    if (known := fresh(request, etag)) is not None:
        return known
    headers = caching(etag) | _unsupported(request)
    if not multipart:
        instance, frame = wanted[0]
        return Response(await _picture(gate, instance, frame, media_type, look), headers=headers, media_type=media_type)
    body = Multipart()
    pieces = _parts(gate, body, wanted, media_type, look, service_of(request))
    return Stream(await begun(pieces), headers=headers, media_type=body.media_type(media_type))


async def _parts(
    gate: Gateway,
    body: Multipart,
    wanted: Sequence[tuple[Instance, int | None]],
    media_type: str,
    look: Look,
    service: str,
) -> AsyncGenerator[bytes, None]:
    calls = [(1, partial(_picture, gate, instance, frame, media_type, look)) for instance, frame in wanted]
    number = 0
    async with aclosing(ahead(calls, most=_DRAWN_AHEAD, weight=_DRAWN_AHEAD)) as pictures:
        async for picture in pictures:
            instance, frame = wanted[number]
            number += 1
            place = f"/frames/{frame + 1}" if frame is not None else ""
            yield body.head(media_type, len(picture), f"{service}{instance.path}{place}/rendered")
            yield picture + END
    yield body.closing


async def _picture(
    gate: Gateway,
    instance: Instance,
    frame: int | None,
    media_type: str,
    look: Look,
) -> bytes:
    with gate.scratch.folder("dicomweb") as folder:
        path = await instance.fetch(gate.stores, folder)
        try:
            picture: bytes = await gate.children.call(
                Draw(path, frame, media_type, look.quality, look.window, look.viewport)
            )
        except UnsupportedSeriesError as error:
            raise unreadable(instance, error) from None
    return picture


def _unsupported(request: Request) -> dict[str, str]:
    """Tell of parameters that are passed over (PS3.18 8.3.5.1): nothing is written into pictures, nor are profiles."""
    passed_over = [
        name
        for name, harmless in (("annotation", ""), ("iccprofile", "no"))
        if request.query_params.get(name, harmless) != harmless
    ]
    return {"Warning": f'299 voxelmill "passed over: {", ".join(passed_over)}"'} if passed_over else {}


def window_of(text: str | None) -> tuple[float, float, str] | None:
    """Read the parameter `window` (PS3.18 8.3.5.1.4).

    Raises
    ------
    Problem
        400 if it makes no sense.
    """
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = _numbers(parts[:2])
    function = parts[2].lower() if len(parts) == 3 else "linear"
    if len(parts) not in {2, 3} or numbers is None or len(numbers) != 2 or function not in _FUNCTIONS:
        raise senseless("window", f"it is centre,width,function with one of {', '.join(_FUNCTIONS)}")
    centre, width = numbers
    if not (width >= 1 if function == "linear" else width > 0):
        raise senseless("window", "its width is at least 1 for linear, and above 0 for the others")
    return centre, width, function


def viewport_of(text: str | None) -> Viewport | None:
    """Read the parameter `viewport` (PS3.18 8.3.5.1.3).

    Raises
    ------
    Problem
        400 if it makes no sense, or is larger than any screen.
    """
    if not text:
        return None
    parts = [part.strip() or "0" for part in text.split(",")]
    numbers = _numbers(parts)
    if len(parts) not in {2, 6} or numbers is None or not all(number.is_integer() for number in numbers[:2]):
        raise senseless("viewport", "it is width,height or width,height,x,y,width,height")
    width, height = int(numbers[0]), int(numbers[1])
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        raise senseless("viewport", f"a picture is 1 to {_LONGEST_SIDE} pixels wide and high")
    found = Viewport(width, height)
    return replace(found, source=(numbers[2], numbers[3], numbers[4], numbers[5])) if len(parts) == 6 else found


def _numbers(parts: Sequence[str]) -> list[float] | None:
    numbers = [float(part) for part in parts if _NUMBER.match(part)]
    return numbers if len(numbers) == len(parts) and all(map(math.isfinite, numbers)) else None
