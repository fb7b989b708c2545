"""De-identifying NIfTI: the header's free texts, all extensions and what follows the voxels go; the rest stays.

The layout is that of `nifti1.h` and `nifti2.h`, see `voxelmill_ingest.nifti`. What a NIfTI-1 file keeps of ANALYZE's
history (data_type, db_name) is text as well.
"""

from __future__ import annotations

import gzip
import math
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
    dimensions_at: int
    dimensions_format: str
    bits_at: int


_NIFTI_1: Final = _Layout(
    348,
    ((4, 34), (140, 8), (148, 80), (228, 24), (328, 16)),
    108,
    "f",
    dimensions_at=40,
    dimensions_format="8h",
    bits_at=72,
)
"""By offset and length: data_type, db_name, extents and session_error; glmax and glmin; descrip; aux_file; intent_name.
What ANALYZE kept there no reader of NIfTI looks at."""
_NIFTI_2: Final = _Layout(
    540, ((240, 80), (320, 24), (508, 16), (525, 15)), 168, "q", dimensions_at=16, dimensions_format="8q", bits_at=14
)
"""descrip, aux_file, intent_name and unused_str."""


def clean_nifti(source: Path, target: Path) -> str:
    """Write a copy of a single-file NIfTI without its texts and extensions; return the suffix that fits it.

    Raises
    ------
    NotDeidentifiableError
        If the file is cut before its voxels end.
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
    _pass(original, copy, _voxel_bytes(bytes(header), order, layout))


def _voxel_bytes(header: bytes, order: str, layout: _Layout) -> int:
    rank, *lengths = struct.unpack_from(order + layout.dimensions_format, header, layout.dimensions_at)
    bits: int
    (bits,) = struct.unpack_from(order + "h", header, layout.bits_at)
    voxels: int = math.prod(lengths[:rank])
    if not 1 <= rank <= len(lengths) or voxels < 1 or bits < 1:
        raise NotDeidentifiableError("its header does not say how many voxels there are")
    return -(-voxels * bits // 8)


def _pass(original: _Readable, copy: _Writable, length: int) -> None:
    while length > 0:
        chunk = original.read(min(length, _CHUNK))
        if not chunk:
            raise NotDeidentifiableError("it ends before its voxels do")
        copy.write(chunk)
        length -= len(chunk)


def _skip(file: _Readable, length: int) -> None:
    while length > 0:
        passed = len(file.read(min(length, _CHUNK)))
        if not passed:
            raise NotDeidentifiableError("it ends before its voxels begin")
        length -= passed
