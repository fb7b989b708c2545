"""The decisions about series: when complete, in which order, with gaps or without."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from voxelmill_ingest.assembly import (
    Close,
    OpenSeries,
    Patience,
    Slice,
    Wait,
    archive_upload,
    contents_digest,
    decide,
    evidence_of,
    in_order,
    without_gaps,
)
from voxelmill_ingest.findings import Cosines, Instance
from voxelmill_shared.events import Evidence, ObjectKind, ObjectRef
from voxelmill_shared.results import ManifestInstance

CHANGED = datetime(2030, 1, 1, tzinfo=UTC)
PATIENCE = Patience()
AXIAL: Cosines = (1, 0, 0, 0, 1, 0)
TILTED: Cosines = (1, 0, 0, 0, 0.9588, -0.2840)


def piece(
    number: int | None, z: float | None = None, orientation: Cosines | None = AXIAL, uid: str | None = None
) -> Slice:
    uid = uid or f"1.{number}"
    facts = Instance(
        kind=ObjectKind.DICOM,
        study_instance_uid="1",
        series_instance_uid="2",
        sop_instance_uid=uid,
        position=None if z is None else (0.0, 0.0, z),
        orientation=orientation,
    )
    reference = ObjectRef(bucket="inbox", key=uid, etag=uid, size=1)
    return Slice(ManifestInstance(object=reference, sop_instance_uid=uid, instance_number=number), facts)


def stack(heights: list[float]) -> list[Slice]:
    return [piece(number, z) for number, z in enumerate(heights)]


def after(seconds: float, **facts: object) -> Close | Wait:
    series = OpenSeries(CHANGED, **{"evidence": None, "upload_open": False, "slices": (), **facts})  # type: ignore[arg-type]
    return decide(series, CHANGED + timedelta(seconds=seconds), PATIENCE)


REGULAR = stack([2.0 * n for n in range(12)])


def test_evidence_closes_at_once() -> None:
    assert after(0, evidence=Evidence.ARCHIVE) == Close(Evidence.ARCHIVE)


def test_slices_without_gaps_close_after_a_short_quiet_time() -> None:
    assert after(4.9, slices=REGULAR) == Wait(CHANGED + PATIENCE.geometry)
    assert after(5, slices=REGULAR) == Close(Evidence.GEOMETRY)


def test_anything_closes_after_the_quiet_time() -> None:
    assert after(29.9) == Wait(CHANGED + PATIENCE.quiet)
    assert after(30) == Close(Evidence.QUIET)


def test_an_open_upload_outweighs_everything_but_its_own_patience() -> None:
    assert after(30, evidence=Evidence.UPLOAD, slices=REGULAR, upload_open=True) == Wait(CHANGED + PATIENCE.upload)
    assert after(60, upload_open=True) == Close(Evidence.QUIET)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([2.0 * n for n in range(12)], True),
        ([-2.0 * n for n in range(12)], True),
        ([2.0 * n + (0.05 if n % 2 else 0) for n in range(12)], True),
        ([2.0 * n for n in range(12) if n != 5], False),
        ([2.0 * n for n in range(9)], False),
        ([0.0] * 12, False),
        ([2.0 * (n // 2) for n in range(24)], False),
    ],
)
def test_gaps_and_doubles_are_seen(heights: list[float], expected: bool) -> None:
    random.Random(1).shuffle(heights)
    assert without_gaps(stack(heights), PATIENCE.regular_slices) is expected


def test_slices_without_a_place_or_with_several_directions_have_no_geometry() -> None:
    assert not without_gaps([piece(n) for n in range(12)], 10)
    assert not without_gaps([*REGULAR, piece(99, 24.0, TILTED)], 10)
    assert not without_gaps([piece(n, 2.0 * n, (0, 0, 0, 0, 0, 0)) for n in range(12)], 10)


def test_the_order_is_that_of_the_positions_along_the_normal() -> None:
    mixed = [piece(3, 1.0), piece(1, 3.0), piece(2, 2.0)]
    assert [one.instance.instance_number for one in in_order(mixed)] == [3, 2, 1]
    sagittal: Cosines = (0, 1, 0, 0, 0, -1)
    assert [one.instance.instance_number for one in in_order([piece(2, 0, sagittal), piece(1, 5, sagittal)])] == [1, 2]


def test_without_positions_the_order_is_that_of_the_numbers_then_of_the_uids() -> None:
    mixed = [piece(None, uid="1.9"), piece(2, uid="1.5"), piece(1, uid="1.7"), piece(None, uid="1.8")]
    assert [one.instance.sop_instance_uid for one in in_order(mixed)] == ["1.7", "1.5", "1.8", "1.9"]
    assert [one.instance.instance_number for one in in_order([piece(2, 1.0), piece(1), piece(3, 0.0)])] == [1, 2, 3]


def test_the_digest_of_the_contents_knows_no_order() -> None:
    assert contents_digest(["a", "b"]) == contents_digest(["b", "a"]) != contents_digest(["ab"])


def test_an_archive_is_an_upload_within_the_upload_that_it_came_with() -> None:
    assert evidence_of(archive_upload(None, "abc")) is Evidence.ARCHIVE
    assert evidence_of(archive_upload("run-1", "abc")) is Evidence.ARCHIVE
    assert archive_upload("run-1", "abc").startswith("run-1/")
    assert evidence_of("run-1") is Evidence.UPLOAD


def test_a_file_that_holds_its_whole_volume_is_complete_at_once() -> None:
    """A NIfTI file waits for nothing more."""
    facts = Instance(
        kind=ObjectKind.NIFTI,
        study_instance_uid="1",
        series_instance_uid="1.2",
        sop_instance_uid="1.2.3",
        sop_class_uid="",
        modality="",
    )
    reference = ObjectRef(bucket="inbox", key="a.nii", etag="e", size=1)
    whole = Slice(ManifestInstance(object=reference, sop_instance_uid="1.2.3"), facts)
    series = OpenSeries(datetime(2030, 1, 1, tzinfo=UTC), None, upload_open=False, slices=(whole,))
    assert decide(series, datetime(2030, 1, 1, tzinfo=UTC), Patience()) == Close(Evidence.GEOMETRY)
