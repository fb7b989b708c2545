"""The rules of the reading routes: percent, ranges, names."""

from __future__ import annotations

import pytest

from voxelmill_gateway.ranges import ByteRange, UnsatisfiableRangeError, asked_range, has_it
from voxelmill_gateway.rest.artefacts import named
from voxelmill_gateway.rest.files import file_name
from voxelmill_gateway.rest.percent import STEPS, WEIGHTS, job_percent, percents, stage_percent
from voxelmill_gateway.rest.segments import label_of
from voxelmill_shared.catalog import ArtefactView, JobStatus, JobView, ProgressView, StageOutcome, StageView
from voxelmill_shared.events import Stage
from voxelmill_shared.results import ResultKeys

KEYS = ResultKeys("1.2", 1, "a" * 24)


def told(stage, step, percent=None):
    return ProgressView(KEYS, "1.2.0", "default", stage, 1, step, 0, 0, percent, None)


def job(**outcomes):
    stages = tuple(StageView(stage, StageOutcome(outcomes.get(stage.value, "pending"))) for stage in Stage)
    status = JobStatus.COMPLETE if set(outcomes.values()) == {"done"} and len(outcomes) == len(Stage) else "processing"
    return JobView(KEYS, "1.2.0", JobStatus(status), False, "CT", 1, "", None, None, None, "", "", "", stages)


def test_the_steps_of_a_stage_make_a_whole():
    """Every step ends where another begins, or at the end; the weights of the stages make 100."""
    assert sum(WEIGHTS.values()) == 100
    for steps in STEPS.values():
        begins = {first for first, _ in steps.values()} | {100}
        assert all(first + share in begins for first, share in steps.values())
        assert 0 in begins


@pytest.mark.parametrize(
    ("stage", "order"),
    [
        (Stage.SEGMENT, ["read", "orient", "body", "airways", "lungs", "bones", "tissue", "refine", "hand over", "statistics", "write", "dicom-seg"]),
        (Stage.SEGMENT, ["read", "upright", "load", "resample", "predict", "restore", "hand over", "statistics", "write", "dicom-seg"]),
        (Stage.MESH, ["read", "extract", "smooth", "decimate", "surfaces", "measure", "write", "preview"]),
        (Stage.THUMBNAIL, ["headers", "pictures", "planes"]),
        (Stage.THUMBNAIL, ["decode", "planes"]),
    ],
)  # fmt: skip
def test_a_stages_percent_never_falls(stage, order):
    """Step after step, from nothing of each to all of it."""
    found = [stage_percent(told(stage, step, percent)) for step in order for percent in (None, 30, 100)]
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == 99


def test_a_step_that_is_not_known_says_nothing():
    """Of a model that is newer than the gateway."""
    assert stage_percent(told(Stage.SEGMENT, "dream", 50)) is None
    assert stage_percent(told(Stage.INDEX, "read", 50)) is None


def test_a_jobs_percent_is_that_of_its_stages():
    """A failed stage is over, too; 100 is kept for the end."""
    working = job(ingest="done", thumbnail="failed")
    assert job_percent(working, {}) == 15
    assert percents(working, {Stage.SEGMENT: told(Stage.SEGMENT, "predict", 100)})[Stage.SEGMENT] == 77
    everything = dict.fromkeys((stage.value for stage in Stage if stage is not Stage.INDEX), "done")
    assert job_percent(job(**everything), {}) == 95
    assert job_percent(job(**everything, index="done"), {}) == 100
    assert job_percent(job(**everything), {Stage.INDEX: told(Stage.INDEX, "x", 1)}) == 95


@pytest.mark.parametrize(
    ("text", "size", "found"),
    [
        ("bytes=0-9", 100, ByteRange(0, 9)),
        ("Bytes = 0-9 ", 100, ByteRange(0, 9)),
        ("bytes=99-", 100, ByteRange(99, 99)),
        ("bytes=-1", 100, ByteRange(99, 99)),
        ("bytes=0-1000", 100, ByteRange(0, 99)),
        ("bytes=0-1,3-4", 100, None),
        ("bytes=9-8", 100, None),
        ("bytes=", 100, None),
        ("", 100, None),
    ],
)
def test_one_range_is_read(text, size, found):
    """What is no single range is answered with the whole."""
    assert asked_range({"range": text}, size, '"e"') == found


@pytest.mark.parametrize(("text", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)])
def test_a_range_of_which_nothing_is_there(text, size):
    """416, and not an empty answer."""
    with pytest.raises(UnsatisfiableRangeError):
        asked_range({"range": text}, size, '"e"')


def test_who_has_it_is_told_by_the_weak_comparison():
    """RFC 9110, 13.1.2."""
    assert [has_it({"if-none-match": held}, '"e"') for held in ('"e"', 'W/"e"', '"a", "e"', "*")] == [True] * 4
    assert [has_it(headers, '"e"') for headers in ({}, {"if-none-match": "e"}, {"if-none-match": '"f"'})] == [False] * 3


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("meshes/lung_left.stl", "lung_left.stl"),
        ('a/b";\r\nX: y.bin', "b____X__y.bin"),
        ("a/..", "file"),
        ("a/.hidden", "hidden"),
        ("ä/ö.stl", "_.stl"),
    ],
)
def test_the_name_of_a_download_is_safe(name, saved):
    """No quotes, no line breaks, no folders, nothing hidden."""
    assert file_name(name) == saved


def test_names_for_people():
    """Words, and the case of what is an abbreviation."""
    assert [label_of(name) for name in ("lung_left", "vertebrae_L1", "")] == ["Lung left", "Vertebrae L1", ""]


def test_a_bare_name_is_looked_for_in_the_folders():
    """The exact name first; an archive of any name is the meshes'."""
    files = [
        ArtefactView(name, name, Stage.MESH, "x/y", 1, "")
        for name in ("meshes/a.json", "segmentation/a.json", "segmentation/b.json", "meshes/meshes.zip")
    ]
    asked = ("segmentation/a.json", "a.json", "b.json", "whatever.zip", "x/whatever.zip", "c.json")
    found = [named(files, name) for name in asked]
    assert [each.name if each else None for each in found] == [
        "segmentation/a.json", "meshes/a.json", "segmentation/b.json", "meshes/meshes.zip", None, None,
    ]  # fmt: skip
