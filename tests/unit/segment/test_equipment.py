"""What a worker's children are told of it."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydantic import ValidationError

from unit.segment.torso import series_task, silent, torso, write_series
from voxelmill_segment.equipment import Equipment, SegType
from voxelmill_segment.settings import SegmentSettings
from voxelmill_segment.work import DICOM_SEG, segment_series
from voxelmill_shared.plan import Organ


def test_a_child_reads_what_its_worker_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the environment, and nothing is lost on the way."""
    told = Equipment(Path("/some/weights"), "cuda:1", "a-licence", SegType.BINARY)
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert Equipment.of_environment() == told


@pytest.mark.parametrize(("value", "kind"), [("binary", SegType.BINARY), ("LABELMAP", SegType.LABELMAP)])
def test_the_type_of_the_segmentation_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, kind: SegType
) -> None:
    """In whatever case it is written; the file is of that type."""
    monkeypatch.setenv("VOXELMILL_SEGMENT_SEG_TYPE", value)
    assert SegmentSettings().segment_seg_type is kind
    paths = write_series(tmp_path / "in", torso())
    segment_series(series_task(paths, tmp_path / "out", organ=Organ.BODY), silent)
    assert pydicom.dcmread(tmp_path / "out" / DICOM_SEG).SegmentationType == kind.upper()


def test_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names what there is."""
    monkeypatch.setenv("VOXELMILL_SEGMENT_SEG_TYPE", "fractional")
    with pytest.raises(ValidationError, match="'labelmap' or 'binary'"):
        SegmentSettings()
