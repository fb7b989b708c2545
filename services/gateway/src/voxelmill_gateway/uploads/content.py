"""What a file is: by what its sender says, and by its first bytes."""

from __future__ import annotations

import zlib
from typing import Final

from voxelmill_shared.uploads import SUFFIXES

HEAD_BYTES: Final = 4096
"""How many bytes of a file tell what it is."""
DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"

_BY_TYPE: Final = {
    "application/dicom": ".dcm",
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
}
_TYPES: Final = {".dcm": "application/dicom", ".zip": "application/zip", ".nii.gz": "application/gzip"}
_NIFTI_SIZES: Final = (348, 540)
"""The first number of a header (nifti1.h, nifti2.h)."""
_TAR_MAGIC: Final = b"ustar"


def declared_suffix(name: str, media_type: str = "") -> str:
    """Return the suffix for a file's key by what its sender says of it: one of the known ones, or nothing.

    Nothing else of the name goes on from here.
    """
    lower = name.lower()
    by_name = next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), "")
    return by_name or _BY_TYPE.get(media_type.partition(";")[0].strip().lower(), "")


def media_type_of(suffix: str) -> str:
    """Return the media type that the object is stored with."""
    return _TYPES.get(suffix, DEFAULT_MEDIA_TYPE)


def suffix_of_content(head: bytes) -> str | None:
    """Tell by its first bytes what a file is.

    Parameters
    ----------
    head
        The first `HEAD_BYTES` bytes, or all if there are fewer.

    Returns
    -------
    str or None
        The suffix: `.dcm`, `.zip`, `.nii`, `.nii.gz`; nothing for a tar archive and for what may be DICOM without a
        preamble. None: it is nothing that ingest takes.
    """
    if head[128:132] == b"DICM":
        return ".dcm"
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        return ".zip"
    if head[:2] == b"\x1f\x8b":
        return _inside_gzip(head)
    if _is_nifti(head):
        return ".nii"
    if head[257:262] == _TAR_MAGIC or _begins_like_dicom(head):
        return ""
    return None


def _inside_gzip(head: bytes) -> str | None:
    try:
        inflated = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 1024)
    except zlib.error:
        return None
    if _is_nifti(inflated):
        return ".nii.gz"
    return "" if inflated[257:262] == _TAR_MAGIC else None


def _is_nifti(head: bytes) -> bool:
    return len(head) >= 4 and (
        int.from_bytes(head[:4], "little") in _NIFTI_SIZES or int.from_bytes(head[:4], "big") in _NIFTI_SIZES
    )


def _begins_like_dicom(head: bytes) -> bool:
    """Whether it begins with an element of group 0002 or 0008, as files without a preamble do (PS3.10 7.1, older)."""
    return (
        len(head) >= 8
        and head[:2] in {b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02"}
        and head[2:4] != b"\x00\x00\x00"
    )
