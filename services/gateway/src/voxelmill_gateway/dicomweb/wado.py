"""WADO-RS: instances and their metadata (PS3.18 10.4)."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.dicomweb.addresses import (
    INSTANCE,
    PREFIX,
    SERIES,
    STUDY,
    Series,
    Sop,
    Study,
    caching,
    described,
    etag_of,
    fresh,
    service_of,
)
from voxelmill_gateway.dicomweb.content import (
    Multipart,
    Part,
    decoded_bytes,
    decoded_parts,
    stored_bytes,
    stored_heads,
    stored_parts,
)
from voxelmill_gateway.dicomweb.instances import contents, find
from voxelmill_gateway.dicomweb.negotiation import (
    DICOM,
    JSON,
    MULTIPART,
    accepted,
    accepts_json,
    form_of,
    not_acceptable,
    object_syntax,
)
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.streaming import Stream, begun
from voxelmill_gateway.task import BULK

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from voxelmill_gateway.dicomweb.instances import Instance
    from voxelmill_gateway.gateway import Gateway

router = APIRouter(prefix=PREFIX, tags=["dicomweb"])

_OBJECTS: Final = (f'{MULTIPART}; type="{DICOM}"',)
_BULK: Final = BULK.encode()


@router.get(STUDY, **described("The instances of a study", "retrieve_study", *_OBJECTS))
async def retrieve_study(study: Study, request: Request, gate: Gate, caller: Viewer) -> Response:
    """Give every instance of a study."""
    return await _objects(request, gate, await find(gate, caller, study))


@router.get(SERIES, **described("The instances of a series", "retrieve_series", *_OBJECTS))
async def retrieve_series(study: Study, series: Series, request: Request, gate: Gate, caller: Viewer) -> Response:
    """Give every instance of a series, in the order of their numbers."""
    return await _objects(request, gate, await find(gate, caller, study, series))


@router.get(INSTANCE, **described("An instance", "retrieve_instance", *_OBJECTS, DICOM))
async def retrieve_instance(
    study: Study, series: Series, sop: Sop, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Give an instance: in a multipart body of one part, or by itself where the client asks for that."""
    return await _objects(request, gate, await find(gate, caller, study, series, sop))


@router.get(f"{STUDY}/metadata", **described("The metadata of a study", "retrieve_study_metadata", JSON))
async def retrieve_study_metadata(study: Study, request: Request, gate: Gate, caller: Viewer) -> Response:
    """Give the headers of every instance of a study as DICOM JSON."""
    return await _metadata(request, gate, await find(gate, caller, study))


@router.get(f"{SERIES}/metadata", **described("The metadata of a series", "retrieve_series_metadata", JSON))
async def retrieve_series_metadata(
    study: Study, series: Series, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Give the headers of every instance of a series as DICOM JSON."""
    return await _metadata(request, gate, await find(gate, caller, study, series))


@router.get(f"{INSTANCE}/metadata", **described("The metadata of an instance", "retrieve_instance_metadata", JSON))
async def retrieve_instance_metadata(
    study: Study, series: Series, sop: Sop, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Give the header of an instance as DICOM JSON, a list of one."""
    return await _metadata(request, gate, await find(gate, caller, study, series, sop))


async def _objects(request: Request, gate: Gateway, found: Sequence[Instance]) -> Response:
    ranges = accepted(request)
    parts = []
    for instance in found:
        syntax = object_syntax(ranges, instance.transfer_syntax, decodable=instance.decodable)
        if syntax is None:
            raise not_acceptable(
                f"{instance.sop}: stored as {instance.transfer_syntax}; ask for {DICOM} with transfer-syntax=*"
            )
        parts.append(Part(instance, syntax))
    several = form_of(ranges, DICOM, several=len(parts) > 1)
    etag = etag_of(contents(found), [part.transfer_syntax for part in parts], several)
    if (known := fresh(request, etag)) is not None:
        return known
    headers = caching(etag)
    if not several:
        return await _single(gate, parts[0], headers)
    body, service = Multipart(), service_of(request)
    if all(part.stored for part in parts):
        heads = stored_heads(body, parts, service)
        headers["Content-Length"] = str(sum(map(len, heads)) + sum(part.instance.size for part in parts))
        pieces = stored_parts(gate, heads, parts)
    else:
        pieces = decoded_parts(gate, body, parts, service)
    return Stream(await begun(pieces), headers=headers, media_type=body.media_type(DICOM))


async def _single(gate: Gateway, part: Part, headers: dict[str, str]) -> Response:
    if part.stored:
        headers["Content-Length"] = str(part.instance.size)
        pieces = stored_bytes(gate, part.instance)
    else:
        pieces = decoded_bytes(gate, part.instance)
    return Stream(await begun(pieces), headers=headers, media_type=part.media_type)


async def _metadata(request: Request, gate: Gateway, found: Sequence[Instance]) -> Response:
    media_type = accepts_json(accepted(request))
    service = service_of(request)
    etag = etag_of(contents(found), "metadata", media_type, service)
    if (known := fresh(request, etag)) is not None:
        return known
    pieces = _joined(gate, found, service)
    return Stream(await begun(pieces), headers=caching(etag), media_type=media_type)


async def _joined(gate: Gateway, found: Sequence[Instance], service: str) -> AsyncGenerator[bytes, None]:
    """Give the list of metadata, a few hundred KiB at a time."""
    waiting, held, before = [], 0, b"["
    async with aclosing(gate.headers.all(found)) as headers:
        async for instance, header in headers:
            metadata = header.metadata.replace(_BULK, f"{service}{instance.path}/bulkdata".encode())
            waiting += [before, metadata]
            held, before = held + len(metadata), b","
            if held > _TOGETHER:
                yield b"".join(waiting)
                waiting, held = [], 0
    yield b"".join([*waiting, b"]"])


_TOGETHER: Final = 256 << 10
