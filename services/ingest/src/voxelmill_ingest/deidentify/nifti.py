"""De-identifying NIfTI: the header's free texts and all extensions go, geometry and voxels stay.

The layout is that of `nifti1.h` and `nifti2.h`, see `voxelmill_ingest.nifti`. What a NIfTI-1 file keeps of ANALYZE's
history (data_type, db_name) is text as well.
"""

from __future__ import annotations

import gzip
import shutil
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from voxelmill_ingest.deidentify.errors import NotDeidentifiableError

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK: Final = 1 << 20
_QUICK: Final = 1
"""The gzip level of copies: they are read once or twice."""
_GZIP: Final = b"\x1f\x8b"


class _Readable(Protocol):
    def read(self, length: int = ..., /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class _Layout:
    header: int
    texts: tuple[tuple[int, int], ...]
    offset_at: int
    offset_format: str


_NIFTI_1: Final = _Layout(348, ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)), 108, "f")
"""data_type, db_name, descrip, aux_file and intent_name by offset and length."""
_NIFTI_2: Final = _Layout(540, ((240, 80), (320, 24), (508, 16)), 168, "q")


def clean_nifti(source: Path, target: Path) -> str:
    """Write a copy of a single-file NIfTI without its texts and extensions; return the suffix that fits it.

    Raises
    ------
    NotDeidentifiableError
        If the file is cut before its voxels begin.
    """
    with source.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
    if not compressed:
        with source.open("rb") as original, target.open("wb") as copy:
            _copy(original, copy)
        return ".nii"
    # No name and no time in the gzip header: both may tell of the original.
    with (
        gzip.open(source, "rb") as original,
        target.open("wb") as written,
        gzip.GzipFile("", "wb", _QUICK, written, mtime=0) as copy,
    ):
        _copy(original, copy)
    return ".nii.gz"


def _copy(original: _Readable, copy: _Writable) -> None:
    header = bytearray(original.read(348))
    order = "<" if bytes(header[:4]) in {struct.pack("<i", 348), struct.pack("<i", 540)} else ">"
    layout = _NIFTI_1 if header[344:347] == b"n+1" else _NIFTI_2
    header += original.read(layout.header - len(header))
    if len(header) < layout.header:
        raise NotDeidentifiableError("it ends inside its header")
    (offset,) = struct.unpack_from(order + layout.offset_format, header, layout.offset_at)
    for start, length in layout.texts:
        header[start : start + length] = bytes(length)
    first_voxel = layout.header + 4  # the four bytes that say whether there are extensions, now that there are none
    struct.pack_into(order + layout.offset_format, header, layout.offset_at, first_voxel)
    _skip(original, max(int(offset), layout.header) - layout.header)
    copy.write(bytes(header) + bytes(4))
    shutil.copyfileobj(original, copy, _CHUNK)


def _skip(file: _Readable, length: int) -> None:
    while length > 0:
        passed = len(file.read(min(length, _CHUNK)))
        if not passed:
            raise NotDeidentifiableError("it ends before its voxels begin")
        length -= passed
