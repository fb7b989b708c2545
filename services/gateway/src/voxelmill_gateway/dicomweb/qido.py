"""QIDO-RS: the search for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from voxelmill_gateway.access.callers import Viewer
from voxelmill_gateway.dicomweb import attributes as names
from voxelmill_gateway.dicomweb import qido_queries as queries
from voxelmill_gateway.dicomweb.addresses import PREFIX, Series, Study, service_of
from voxelmill_gateway.dicomweb.negotiation import JSON, accepted, accepts_json
from voxelmill_gateway.dicomweb.qido_parameters import MOST_OFFSET, query_of
from voxelmill_gateway.gateway import Gate
from voxelmill_shared.database import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway

router = APIRouter(prefix=PREFIX, tags=["dicomweb"])

MOST: Final = {"studies": 1_000, "series": 5_000, "instances": 20_000}
"""The longest page; who wants more asks for the next one (PS3.18 8.3.4.4)."""


def _described(what: str, operation: str) -> dict[str, Any]:
    parameter = {"in": "query", "required": False}
    return {
        "summary": f"Search for {what}",
        "operation_id": operation,
        "response_class": Response,
        "openapi_extra": {
            "parameters": [
                parameter | {"name": "limit", "schema": {"type": "integer", "minimum": 0, "maximum": 1 << 31}},
                parameter | {"name": "offset", "schema": {"type": "integer", "minimum": 0, "maximum": MOST_OFFSET}},
                parameter
                | {
                    "name": "includefield",
                    "description": "keywords or tags, with commas between them, or all",
                    "schema": {"type": "string", "enum": ["all", "PatientAge", "00101010"]},
                },
                parameter | {"name": "fuzzymatching", "schema": {"type": "string", "enum": ["true", "false"]}},
                parameter
                | {
                    "name": "PatientID",
                    "description": "an attribute by its keyword or tag, with a value, a list, a range or wildcards",
                    "schema": {"type": "string", "maxLength": 64, "pattern": "^[0-9A-Za-z*?]*$"},
                },
            ]
        },
        "responses": {
            200: {"description": "What was found", "content": {JSON: {}}},
            204: {"description": "Nothing was found"},
            400: {"description": "A parameter makes no sense"},
            406: {"description": "The client takes no JSON"},
        },
    }


@router.get("/studies", **_described("studies", "search_studies"))
async def search_studies(request: Request, gate: Gate, caller: Viewer) -> Response:
    """Search for studies by what describes them, or one of their series."""
    return await _search(request, gate, caller, "studies", {})


@router.get("/series", **_described("series", "search_series"))
async def search_series(request: Request, gate: Gate, caller: Viewer) -> Response:
    """Search for series of any study."""
    return await _search(request, gate, caller, "series", {})


@router.get("/instances", **_described("instances", "search_instances"))
async def search_instances(request: Request, gate: Gate, caller: Viewer) -> Response:
    """Search for instances of any study."""
    return await _search(request, gate, caller, "instances", {})


@router.get("/studies/{study}/series", **_described("series of a study", "search_study_series"))
async def search_study_series(study: Study, request: Request, gate: Gate, caller: Viewer) -> Response:
    """Search for series of a study."""
    return await _search(request, gate, caller, "series", {names.STUDY_UID: study})


@router.get("/studies/{study}/instances", **_described("instances of a study", "search_study_instances"))
async def search_study_instances(study: Study, request: Request, gate: Gate, caller: Viewer) -> Response:
    """Search for instances of a study."""
    return await _search(request, gate, caller, "instances", {names.STUDY_UID: study})


@router.get(
    "/studies/{study}/series/{series}/instances", **_described("instances of a series", "search_series_instances")
)
async def search_series_instances(
    study: Study, series: Series, request: Request, gate: Gate, caller: Viewer
) -> Response:
    """Search for instances of a series."""
    return await _search(request, gate, caller, "instances", {names.STUDY_UID: study, names.SERIES_UID: series})


async def _search(request: Request, gate: Gateway, caller: Caller, level: str, path: Mapping[str, str]) -> Response:
    media_type = accepts_json(accepted(request))
    wanted, warnings = query_of(request.query_params, level, path)
    capped = wanted.limit > MOST[level]
    page = min(wanted.limit, MOST[level])
    asked = replace(wanted, limit=page + capped)  # one more than is given tells that there are more
    async with reading(gate.engine) as connection:
        match level:
            case "studies":
                found = await queries.qido_studies(connection, caller.scope(), asked)
            case "series":
                within = names.STUDY_UID in path
                found = await queries.qido_series(connection, caller.scope(), asked, within_study=within)
            case _:
                found = await queries.qido_instances(
                    connection,
                    caller.scope(),
                    asked,
                    within_study=names.STUDY_UID in path,
                    within_series=names.SERIES_UID in path,
                )
    if len(found) > page:
        found = found[:page]
        warnings = [*warnings, "There are additional results that can be requested"]
    await gate.trail.record(
        caller, "search", study=path.get(names.STUDY_UID, ""), series=path.get(names.SERIES_UID, "")
    )
    headers = {"Cache-Control": "no-cache"}
    if warnings:
        headers["Warning"] = ", ".join(f'299 {service_of(request)} "{warning}"' for warning in warnings)
    if not found:
        return Response(status_code=204, headers=headers)
    for one in found:
        one[names.RETRIEVE_URL] = {"vr": "UR", "Value": [_address(service_of(request), one, level)]}
    body = json.dumps([dict(sorted(one.items())) for one in found], separators=(",", ":"), ensure_ascii=False)
    return Response(body.encode("utf-8", "replace"), headers=headers, media_type=media_type)


def _address(service: str, found: dict[str, Any], level: str) -> str:
    address = f"{service}/studies/{found[names.STUDY_UID]['Value'][0]}"
    if level == "studies":
        return address
    address += f"/series/{found[names.SERIES_UID]['Value'][0]}"
    return address if level == "series" else f"{address}/instances/{found[names.SOP_UID]['Value'][0]}"
