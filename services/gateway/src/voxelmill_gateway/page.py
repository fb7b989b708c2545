"""The page where people look, as files: `services/gateway/page` builds them into the folder `static` of this package.

Names that hold a digest of their content may be kept for ever; `index.html` names them, and is asked for each time. The
build leaves a compressed copy beside each file that gains from it, and a client that takes it is given that one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Header
from fastapi.responses import FileResponse, PlainTextResponse, Response

from voxelmill_gateway.problems import not_found

STATIC: Final = Path(__file__).with_name("static")
NOT_BUILT: Final = (
    "This gateway runs without its page. To build it, with Node.js 20.19 or newer: make page, then start it again.\n"
    "The interface is all there: it is described at /openapi.json, DICOMweb is at /dicomweb.\n"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_HASHED: Final = re.compile(r".+-[A-Za-z0-9_-]{8}\.[a-z0-9]+", re.ASCII)
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""The content codings that the build makes, the smaller first (RFC 9110, 8.4.1)."""
_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".md": "text/plain",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
"""Not as the machine's own table says, which differs."""

Accepted = Annotated[str, Header(alias="Accept-Encoding")]


def pages(folder: Path = STATIC) -> APIRouter:
    """Return the routes of the page that was built into a folder."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    @router.api_route("/index.html", methods=["GET", "HEAD"])
    def index(accept_encoding: Accepted = "") -> Response:
        if not (folder / "index.html").is_file():
            return PlainTextResponse(NOT_BUILT, headers={"Cache-Control": "no-store"})
        return _file(folder, "index.html", accept_encoding)

    @router.api_route("/favicon.svg", methods=["GET", "HEAD"])
    def icon(accept_encoding: Accepted = "") -> Response:
        return _file(folder, "favicon.svg", accept_encoding)

    @router.api_route("/assets/{name}", methods=["GET", "HEAD"])
    def asset(name: str, accept_encoding: Accepted = "") -> Response:
        return _file(folder / "assets", name, accept_encoding)

    return router


def _file(folder: Path, name: str, accepted: str) -> Response:
    path = folder / name
    media_type = _MEDIA_TYPES.get(path.suffix)
    if not _NAME.fullmatch(name) or media_type is None or not path.is_file():
        raise not_found("this part of the page")
    headers = {"Cache-Control": _IMMUTABLE if _HASHED.fullmatch(name) else "no-cache", "Vary": "Accept-Encoding"}
    wanted = _codings(accepted)
    for coding, suffix in _ENCODINGS.items():
        packed = path.with_name(name + suffix)
        if coding in wanted and packed.is_file():
            return FileResponse(packed, media_type=media_type, headers={**headers, "Content-Encoding": coding})
    return FileResponse(path, media_type=media_type, headers=headers)


def _codings(accepted: str) -> set[str]:
    """Return the content codings that a client takes: those that it names, unless with the weight 0."""
    named = (entry.replace(" ", "").partition(";q=") for entry in accepted.lower().split(","))
    return {coding for coding, _, weight in named if not re.fullmatch(r"0(\.0*)?", weight)}


router = pages()
