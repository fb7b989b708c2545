"""Which representation a client gets: media types and transfer syntaxes by its Accept (PS3.18 8.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fastapi import Request

EXPLICIT: Final = "1.2.840.10008.1.2.1"
"""Explicit VR Little Endian: what a client gets that names no transfer syntax (PS3.18 8.7.3.4)."""
DICOM: Final = "application/dicom"
JSON: Final = "application/dicom+json"
OCTETS: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"

_JPEG, _JPEG_2000 = "image/jpeg", "image/jp2"
_MEDIA_TYPES: Final = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70)), _JPEG),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)), "image/jphc"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)), "image/jxl"),
    "1.2.840.10008.1.2.8.1": "application/x-deflate",
    "1.2.840.10008.1.2.4.100": "video/mpeg",
    "1.2.840.10008.1.2.4.101": "video/mpeg",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (102, 103, 104, 105, 106)), "video/mp4"),
    "1.2.840.10008.1.2.4.107": "video/H265",
    "1.2.840.10008.1.2.4.108": "video/H265",
}
"""The media type of a compressed frame by its transfer syntax (PS3.18 Table 8.7.3-2 and following)."""
_OTHER_NAMES: Final = {"image/x-dicom-rle": "image/dicom-rle", "image/x-jls": "image/jls", "image/jhc": "image/jphc"}
"""What editions before 2016 called them, and clients still do; the last is what dicomweb-client calls HTJ2K."""

_LONGEST: Final = 4096
_PIECES: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_PARAMETER: Final = re.compile(r';\s*([A-Za-z0-9!#$&^_.+-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One thing that a client accepts.

    Attributes
    ----------
    media_type
        `image/jpeg`, `image/*`; of a multipart body, that of its parts.
    multipart
        True: as `multipart/related`. False: as a body of its own. None: either (`*/*`).
    transfer_syntax
        A UID, `*`, or empty where none is named.
    quality
        The weight, 0 to 1.
    """

    media_type: str
    multipart: bool | None
    transfer_syntax: str = ""
    quality: float = 1.0

    def covers(self, media_type: str) -> bool:
        """Whether this is the media type, or a wildcard for it."""
        kind, _, rest = self.media_type.partition("/")
        return self.media_type in {media_type, "*/*"} or (rest in {"*", ""} and media_type.startswith(f"{kind}/"))


def accepted(request: Request) -> list[MediaRange]:
    """Return what a request accepts, best first: by the parameter `accept` if there is one (PS3.18 8.3.3.1).

    Raises
    ------
    Problem
        400 if it is longer than anybody needs.
    """
    text = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    if len(text) > _LONGEST:
        raise Problem(400, "Accept is too long", f"it may have {_LONGEST} characters; name fewer media types")
    return parse(text)


def parse(text: str) -> list[MediaRange]:
    """Read an Accept header (RFC 9110, 12.5.1), best first; what makes no sense in it is passed over."""
    ranges = [found for piece in _PIECES.findall(text) if (found := _range(piece))]
    return sorted((found for found in ranges if found.quality > 0), key=lambda found: -found.quality)


def _range(piece: str) -> MediaRange | None:
    media_type = piece.partition(";")[0].strip().lower()
    parameters = {name.lower(): value.strip().strip('"').strip() for name, value in _PARAMETER.findall(piece)}
    if "/" not in media_type:
        return None
    try:
        quality = float(parameters.get("q") or 1)
    except ValueError:
        return None
    multipart: bool | None = None if media_type == "*/*" else False
    if media_type in {MULTIPART, "multipart/*"}:
        multipart, media_type = True, parameters.get("type", "*/*").lower()
    return MediaRange(
        _OTHER_NAMES.get(media_type, media_type), multipart, parameters.get("transfer-syntax", ""), quality
    )


def accepts_json(ranges: Sequence[MediaRange]) -> str:
    """Return the media type of a JSON answer.

    Raises
    ------
    Problem
        406 if none is accepted.
    """
    for found in ranges:
        if found.multipart is not True:
            for media_type in (JSON, "application/json"):
                if found.covers(media_type):
                    return media_type
    raise not_acceptable(f"it is there as {JSON}")


def object_syntax(ranges: Sequence[MediaRange], stored: str, *, decodable: bool) -> str | None:
    """Return the transfer syntax in which a DICOM object is to be given, or None if there is none that is accepted.

    Parameters
    ----------
    ranges
        What is accepted, best first.
    stored
        The transfer syntax that it has. It is given as it is where that is accepted.
    decodable
        Whether it can be given in Explicit VR Little Endian if it has another one.
    """
    for found in ranges:
        if found.covers(DICOM):
            wanted = found.transfer_syntax or EXPLICIT
            if wanted in {"*", stored}:
                return stored
            if wanted == EXPLICIT and decodable:
                return EXPLICIT
    return None


def frame_type(ranges: Sequence[MediaRange], stored: str, *, compressed: bool, decodable: bool) -> str | None:
    """Return how frames are to be given: `media/type; transfer-syntax=UID`, or None if no way is accepted.

    Octets are the frame decoded, but `transfer-syntax=*` means as it is stored: nothing is decoded that the client can
    decode itself. Clients that ask for octets of any transfer syntax read the label.

    Parameters
    ----------
    ranges
        What is accepted, best first.
    stored, compressed
        The transfer syntax of the object, and whether its frames are codestreams.
    decodable
        Whether they can be decoded here.
    """
    for found in ranges:
        if compressed and found.media_type != "*/*" and found.transfer_syntax in {"", "*", stored}:
            own = _MEDIA_TYPES.get(stored, OCTETS)
            if own != OCTETS and found.covers(own):
                return typed(own, stored)
        if found.covers(OCTETS):
            if not compressed and found.transfer_syntax in {"", "*", EXPLICIT, stored}:
                return typed(OCTETS, EXPLICIT)
            if compressed and found.transfer_syntax in {"*", stored}:
                return typed(OCTETS, stored)
            if decodable and found.transfer_syntax in {"", "*", EXPLICIT}:
                return typed(OCTETS, EXPLICIT)
    return None


def picture_type(ranges: Sequence[MediaRange], offered: Collection[str]) -> tuple[str, bool | None]:
    """Return the media type of a picture and whether it is to be given in a multipart body.

    Raises
    ------
    Problem
        406 if none of those offered is accepted.
    """
    for found in ranges:
        for media_type in offered:
            if found.covers(media_type):
                return media_type, found.multipart
    raise not_acceptable(f"there are {', '.join(offered)}")


def form_of(ranges: Sequence[MediaRange], media_type: str, *, several: bool) -> bool:
    """Return whether an answer of this media type is to be multipart.

    Raises
    ------
    Problem
        406 if there are several parts and only a single one is accepted.
    """
    first = next((found for found in ranges if found.covers(media_type)), None)
    if first is None or first.multipart is None:
        return several or media_type in {DICOM, OCTETS}
    if several and not first.multipart:
        if any(found.covers(media_type) and found.multipart is not False for found in ranges):
            return True
        raise not_acceptable(f'there are several; ask for {MULTIPART}; type="{media_type}"')
    return first.multipart


def typed(media_type: str, transfer_syntax: str) -> str:
    """Return a media type with its transfer syntax as a parameter."""
    return f"{media_type}; transfer-syntax={transfer_syntax}"


def not_acceptable(detail: str) -> Problem:
    """Say that there is nothing that the client accepts, and what there is."""
    return Problem(406, "Nothing acceptable", detail)
