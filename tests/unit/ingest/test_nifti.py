"""NIfTI headers: what nibabel writes is understood, and what is no volume is said to be none."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import ObjectKind, ObjectRef

if TYPE_CHECKING:
    from pathlib import Path


def judge(body: bytes, etag: str = "e") -> Instance | Refusal:
    reading = inspect(ObjectRef(bucket="inbox", key="volume", etag=etag, size=len(body)))
    wanted = next(reading)
    try:
        reading.send(body[wanted.start : wanted.start + wanted.length])
    except StopIteration as end:
        found: Instance | Refusal = end.value
        return found
    raise AssertionError("a NIfTI header needs one read")


def image(shape: tuple[int, ...], dtype: Any = np.int16, kind: Any = nib.Nifti1Image) -> bytes:
    body: bytes = kind(np.zeros(shape, dtype), np.eye(4), dtype=dtype).to_bytes()
    return body


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_volume_is_a_series_of_one(kind: Any, dtype: Any, pack: Any) -> None:
    found = judge(pack(image((5, 6, 7), dtype, kind)))
    assert isinstance(found, Instance)
    assert (found.columns, found.rows, found.frames) == (5, 6, 7)
    assert found.kind is ObjectKind.NIFTI


def test_big_endian_headers_are_read() -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_data_shape((5, 6, 7))
    header["magic"], header["vox_offset"] = b"n+1", 352
    assert isinstance(judge(header.binaryblock + bytes(4 + 5 * 6 * 7 * 2)), Instance)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 6, 7, 1, 3), np.int16), ((5, 6), np.int16), ((5, 6, 1), np.int16), ((5, 6, 7), np.complex64)],
)
def test_what_is_no_volume_is_skipped(shape: tuple[int, ...], dtype: Any) -> None:
    found = judge(image(shape, dtype))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NIFTI_NOT_A_VOLUME


def test_a_series_of_volumes_in_time_is_taken() -> None:
    """Its first volume is worked on; what is no volume in it nobody has to sort out first."""
    found = judge(image((5, 6, 7, 3)))
    assert isinstance(found, Instance)
    assert (found.columns, found.rows, found.frames) == (5, 6, 7)


def test_a_fourth_dimension_of_one_is_a_volume_all_the_same() -> None:
    assert isinstance(judge(image((5, 6, 7, 1))), Instance)


def test_missing_voxels_and_contradictions_are_found() -> None:
    body = image((5, 6, 7))
    bad_type = body[:70] + b"\x63\x00" + body[72:]
    no_spacing = body[:80] + bytes(4) + body[84:]
    for broken in (body[:-1], body[:400], bad_type, no_spacing):
        found = judge(broken)
        assert isinstance(found, Refusal)
        assert found.reason is Reason.NIFTI_CORRUPT


def test_uids_come_from_the_content(data: Path) -> None:
    body = (data / "nifti" / "nibabel" / "anatomical.nii").read_bytes()
    first, again, other = judge(body, "a"), judge(body, "a"), judge(body, "b")
    assert first == again
    assert first.series_instance_uid != other.series_instance_uid
    assert len({first.study_instance_uid, first.series_instance_uid, first.sop_instance_uid}) == 3
