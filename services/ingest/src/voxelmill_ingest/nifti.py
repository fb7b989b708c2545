"""From the header of a NIfTI-1 or NIfTI-2 file to an instance, or to the reason why it is none.

The layout is that of `nifti1.h` (https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h) and `nifti2.h`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.header import content_uid
from voxelmill_ingest.pixels import MOST_DECODED_BYTES
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.projects import project_of, project_prefix

if TYPE_CHECKING:
    from voxelmill_shared.events import ObjectRef

LONGEST_HEADER = 544
"""Bytes of a NIfTI-2 header with the flag for extensions."""
_GZIP_LIMIT = 1032
"""Deflate packs no tighter than this (zlib's technical notes)."""
_SCALARS: Final = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1536: 128}
"""Bits per voxel by data type code."""
_OTHER_TYPES: Final = {1: "single bits", 32: "complex", 128: "colour", 1792: "complex", 2048: "complex", 2304: "colour"}


@dataclass(frozen=True, slots=True)
class _Fields:
    single_file: bool
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    voxel_offset: float


def looks_like_nifti(head: bytes) -> bool:
    """Whether these are the first bytes of a NIfTI header, in either byte order."""
    return _order(head) is not None


def judge_nifti(head: bytes, reference: ObjectRef, *, compressed: bool) -> Instance | Refusal:
    """Judge a file by its header.

    Parameters
    ----------
    head
        The first `LONGEST_HEADER` bytes, or all if there are fewer; inflated if `compressed`.
    reference
        The object; its project and its content give the UIDs.
    compressed
        Whether the object is gzip, so that its size says little of how many voxels it has.
    """
    fields = _parse(head)
    if fields is None:
        return Refusal(reason=Reason.NIFTI_CORRUPT, detail="the object ends inside the header")
    problem = _contradiction(fields) or _missing_voxels(fields, reference.size, compressed=compressed)
    if problem:
        return Refusal(reason=Reason.NIFTI_CORRUPT, detail=problem)
    shape = fields.dim[1 : fields.dim[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not fields.single_file:
        return _no_volume("its voxels are in another file")
    if (
        len(shape) not in {3, 4} or min(shape) < 2
    ):  # a fourth axis is time: the volumes are told apart where they are read
        return _no_volume("its dimensions are " + " x ".join(map(str, shape)))
    if fields.datatype in _OTHER_TYPES:
        return _no_volume(f"its voxels are {_OTHER_TYPES[fields.datatype]}")
    # The same volume in two projects is two series: a series belongs to one of them.
    content = f"{project_prefix(project_of(reference.key))}{reference.content()}"
    return Instance(
        kind=ObjectKind.NIFTI,
        study_instance_uid=content_uid("nifti study", content),
        series_instance_uid=content_uid("nifti series", content),
        sop_instance_uid=content_uid("nifti instance", content),
        columns=shape[0],
        rows=shape[1],
        frames=shape[2],
    )


def _order(head: bytes) -> str | None:
    for order in "<>":
        if len(head) >= 348 and struct.unpack_from(f"{order}i", head)[0] == 348 and head[344:347] in {b"n+1", b"ni1"}:
            return order
        if len(head) >= 12 and struct.unpack_from(f"{order}i", head)[0] == 540 and head[4:7] in {b"n+2", b"ni2"}:
            return order
    return None


def _parse(head: bytes) -> _Fields | None:
    order = _order(head)
    if order is None:
        return None
    if head[4:7] in {b"n+2", b"ni2"}:
        if len(head) < 540:
            return None
        datatype, bitpix = struct.unpack_from(f"{order}2h", head, 12)
        dim = struct.unpack_from(f"{order}8q", head, 16)
        pixdim = struct.unpack_from(f"{order}8d", head, 104)
        voxel_offset = float(struct.unpack_from(f"{order}q", head, 168)[0])
        return _Fields(head[4:7] == b"n+2", dim, datatype, bitpix, pixdim, voxel_offset)
    dim = struct.unpack_from(f"{order}8h", head, 40)
    datatype, bitpix = struct.unpack_from(f"{order}2h", head, 70)
    pixdim = struct.unpack_from(f"{order}8f", head, 76)
    voxel_offset = struct.unpack_from(f"{order}f", head, 108)[0]
    return _Fields(head[344:347] == b"n+1", dim, datatype, bitpix, pixdim, voxel_offset)


def _contradiction(fields: _Fields) -> str:
    """Return what in the header cannot be, or an empty string."""
    count = fields.dim[0]
    if not 1 <= count <= 7 or min(fields.dim[1 : count + 1]) < 1:
        return f"its dimensions are {fields.dim}"
    if fields.datatype not in _SCALARS and fields.datatype not in _OTHER_TYPES:
        return f"its data type {fields.datatype} does not exist"
    if fields.bitpix != _SCALARS.get(fields.datatype, fields.bitpix):
        return f"its data type {fields.datatype} does not have {fields.bitpix} bits"
    spacing = fields.pixdim[1 : min(count, 3) + 1]
    if not all(math.isfinite(step) and step != 0 for step in spacing):
        return f"its voxels measure {spacing}"
    if not (math.isfinite(fields.voxel_offset) and 0 <= fields.voxel_offset <= 1 << 40):
        return f"its voxels begin at {fields.voxel_offset}"
    return ""


def _missing_voxels(fields: _Fields, size: int, *, compressed: bool) -> str:
    """Return why the object cannot hold all voxels, or an empty string."""
    needed = math.prod(fields.dim[1 : fields.dim[0] + 1]) * fields.bitpix // 8
    if needed > MOST_DECODED_BYTES:
        return f"its voxels are {needed} bytes"
    if not fields.single_file:
        return ""
    present = size * _GZIP_LIMIT if compressed else size
    if present < needed + fields.voxel_offset:
        return f"{size} bytes cannot hold {needed} bytes of voxels"
    return ""


def _no_volume(detail: str) -> Refusal:
    return Refusal(reason=Reason.NIFTI_NOT_A_VOLUME, detail=detail)
