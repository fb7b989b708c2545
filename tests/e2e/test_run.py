"""`voxelmill run` as a user runs it: a process, real DICOM, files on disk.

Starting is most of what a run of small series costs. So one run takes several series, and each test looks at its own.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import zipfile
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
import trimesh
from pydicom.uid import generate_uid

from e2e.background import background
from e2e.command import VOXELMILL, Ended, check_receipt, digests, voxelmill
from e2e.runs import COARSE, SMALL, Finished
from e2e.sharing import once
from voxelmill_cli.phantom import make_phantom
from voxelmill_cli.phantom_dicom import write_series

WHOLE = "all_segmentation_chest_ct"
ODD_NAME = "out#1?x=%41 é"


@pytest.fixture(scope="module")
def mixed(coarse, small, tmp_path_factory) -> Finished:
    """A run of sources of many kinds beside each other, some of them bad, into a folder of an odd name."""

    def run(made):
        source = made / "source"
        shutil.copytree(small[0], source / "quite#odd?x=%41 é")
        with zipfile.ZipFile(source / "study.zip", "w", zipfile.ZIP_DEFLATED) as target:
            for path in sorted(coarse.iterdir()):
                target.write(path, f"some folder/{path.name}")
        for seed, name, absent in ((11, "one absent", {6}), (12, "four absent", {4, 5, 6, 7}), (13, "bad", set())):
            write_series(source / name, make_phantom(replace(SMALL, seed=seed)))
            remove_slices(source / name, absent)
        good = sorted((source / "bad").iterdir())
        (source / "bad" / "truncated.dcm").write_bytes(another_instance(good[0])[:-1000])
        (source / "bad" / "notes.txt").write_text("not an image")
        (source / "bad" / "empty.dcm").touch()
        phantom = make_phantom(replace(SMALL, seed=14))
        image = nibabel.Nifti1Image(phantom.voxels.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ phantom.affine)
        (source / "patient one.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 1))
        (made / "outputs").mkdir()
        before = digests(source)
        ended = voxelmill("run", source, "--output", made / "outputs" / ODD_NAME, "--cleanup-input", "--json")
        return [asdict(ended), before]

    made, (said, before) = once(tmp_path_factory, "mixed", run)
    return Finished(Ended(**said), made / "source", made / "outputs" / ODD_NAME, before)


def remove_slices(folder, numbers):
    """Remove the slices with these Instance Numbers."""
    for path in list(folder.iterdir()):
        if int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber) in numbers:
            path.unlink()


def another_instance(path):
    """Give a slice as one more of its series."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def uid_of(folder):
    """Read the Series Instance UID of a folder of slices."""
    return pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID


def test_a_series_becomes_every_artefact(finished):
    """Exit code 0, one JSON document, and the files that DESIGN names."""
    ended, folder = finished.ended, finished.output / WHOLE
    assert ended.code == 0, ended.err
    assert ended.document["exit_code"] == 0
    assert [series["status"] for series in ended.document["series"]] == ["complete"] * 2
    names = set(digests(folder))
    assert {
        "labelmap.nii.gz",
        "segmentation.dcm",
        "statistics.json",
        "scene.glb",
        "meshes.zip",
        "receipt.json",
    } <= names
    assert {f"thumbnails/{name}.webp" for name in ("axial", "coronal", "sagittal", "mip", "preview")} <= names
    assert {f"thumbnails/instance-{n}-{size}.webp" for n in (1, 24) for size in (64, 256)} <= names
    for segment in ("lung_left", "lung_right", "bones"):
        assert {f"all_{segment}.stl", f"all_{segment}_colored.ply", f"all_{segment}.obj"} <= names


def test_the_receipt_names_every_file_with_its_digest(finished):
    """Inputs with their content, the stages with their times, artefacts with size and SHA-256."""
    folder = finished.output / WHOLE
    receipt = check_receipt(folder)
    assert len(receipt["inputs"]) == 24
    assert set(receipt["stages"]) >= {"thumbnail", "segment", "mesh"}
    assert all(stage["seconds"]["domain"] > 0 for stage in receipt["stages"].values() if stage["outcome"] == "done")
    assert len(receipt["trace_id"]) == 32


def test_the_meshes_lie_in_the_patient_and_left_is_left(finished):
    """Vertices are LPS millimetres inside the volume's box; the left lung is on the patient's left (x grows)."""
    folder, affine = finished.output / WHOLE, make_phantom(COARSE).affine
    corners = np.array([[i, j, k, 1] for i in (-0.5, 63.5) for j in (-0.5, 63.5) for k in (-0.5, 23.5)])
    box = (affine @ corners.T).T[:, :3]
    centres = {}
    for path in folder.glob("all_*.stl"):
        mesh = trimesh.load(path)
        assert (mesh.bounds[0] >= box.min(0) - 1e-3).all(), path.name
        assert (mesh.bounds[1] <= box.max(0) + 1e-3).all(), path.name
        centres[path.stem.removeprefix("all_")] = mesh.bounds.mean(0)
    assert centres["lung_left"][0] > centres["lung_right"][0]
    image = nibabel.load(folder / "labelmap.nii.gz")
    assert np.allclose(np.diag([-1, -1, 1, 1]) @ image.affine, affine, atol=1e-4)


def test_paths_may_hold_what_addresses_may_not(mixed):
    """`#`, `?` and `%41` in source and destination are part of their names, and nothing is written beside them."""
    check_receipt(mixed.output / "all_segmentation_quite_odd_x_41")
    assert [path.name for path in mixed.output.parent.iterdir()] == [ODD_NAME]
    status = voxelmill("status", "--data", mixed.output)
    assert status.code == 0
    assert "complete" in status.out


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_as_good_as_a_folder(coarse, small, finished, mixed, kind):
    """The same label map and meshes come out of a zip and of a tar."""
    # The first run took one of the series out of a tar, the second took the other one out of a zip.
    uid = uid_of(coarse if kind == "zip" else small[0])
    made, expected = (
        {one["series_instance_uid"]: one for one in run.ended.document["series"]} for run in (finished, mixed)
    )
    assert made[uid]["artefacts"] == expected[uid]["artefacts"]
    assert len(made[uid]["artefacts"]) > 20
    for run in (made, expected):
        check_receipt(Path(run[uid]["folder"]))


def test_bad_objects_are_listed_and_the_rest_is_done(mixed):
    """A truncated slice, a text file and an empty file among good slices: exit code 1, each with its reason."""
    document = mixed.ended.document
    assert mixed.ended.code == document["exit_code"] == 1
    rejected = {entry["object"]: entry["reason"] for entry in document["rejected"]}
    assert set(rejected) == {"bad/truncated.dcm", "bad/empty.dcm"}
    assert rejected["bad/truncated.dcm"] == "truncated"
    assert [entry["object"] for entry in document["skipped"]] == ["bad/notes.txt"]
    assert mixed.of("all_segmentation_bad")["status"] == "complete"


def test_missing_slices_fail_the_segmentation_with_the_reason_and_keep_the_pictures(mixed):
    """A wrong volume is worse than none: the stage fails and says which slices are missing."""
    (failed,) = mixed.ended.document["failed"]
    assert (failed["stage"], failed["error_class"]) == ("segment", "missing-slices")
    assert "4 slices are missing" in failed["reason"]
    folder = mixed.output / "all_segmentation_four_absent"
    assert check_receipt(folder)["status"] == "partial"
    assert (folder / "thumbnails" / "instance-1-256.webp").exists()


def test_one_missing_slice_is_filled_in_and_told(mixed):
    """The series is worked on, and the receipt says which slice was not acquired."""
    receipt = check_receipt(mixed.output / "all_segmentation_one_absent")
    assert receipt["status"] == "complete"
    assert any(warning.startswith("segment: 1 slice") for warning in receipt["warnings"]), receipt["warnings"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nowhere", "--output", "out"], 2, "nowhere: no such file or folder"),
        (["run", "empty", "--output", "out"], 2, "holds no files"),
        (["run", "source", "--output", "source"], 2, "is the source itself"),
        (["run", "source"], 2, "--output"),
        (["run", "source", "--output", "out", "--organ", "spleen"], 2, "spleen"),
        (["run", "source", "--output", "out", "--format", "fbx"], 2, "fbx"),
        (["run", "source", "--output", "out", "--task", "total"], 2, "the model threshold has no tasks"),
        (["run", "source", "--output", "file"], 2, "file"),
        (["dlq", "list"], 2, "no installation there"),
        (["watch"], 2, "not built yet"),
        (["status", "--data", "empty"], 2, "no catalog there"),
        (["--log-level", "LOUD", "doctor"], 2, "LOUD"),
    ],
)
def test_wrong_usage_is_one_clear_line(tmp_path, arguments, code, words):
    """What is wrong, in which argument, and exit code 2."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("a")
    (tmp_path / "file").write_text("a file where a folder should be")
    ended = voxelmill(*arguments, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert ended.out == ""


def test_a_source_without_images_is_exit_code_1(tmp_path):
    """Nothing was done, so it is no success."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("a")
    ended = voxelmill("run", tmp_path / "source", "--output", tmp_path / "out", "--json")
    assert ended.code == 1
    assert ended.document["series"] == []


@pytest.fixture(scope="module")
def broken_off(finished, tmp_path_factory):
    """A source that was run for all is run for the lungs: ended by two signals, then to its end, and beside itself."""

    def run(made):
        output = finished.copy(made / "out")
        arguments = ["run", finished.source, "--organ", "lungs", "--output", output]
        arguments += ["--format", "stl,ply", "--reduction-percent", "50"]
        told = {"signals": {}}
        for number in (signal.SIGINT, signal.SIGTERM):
            with background(*arguments) as process:
                process.stdout.readline()  # the workers are up, and so are their children
                children = psutil.Process(process.fork.pid).children(recursive=True)
                code = process.end(number)
                left = psutil.wait_procs(children, timeout=10)[1]
                told["signals"][number.name] = [code, process.errors, len(children), len(left)]
        with background(*arguments) as process:
            process.stdout.readline()  # it has begun
            second = voxelmill(*arguments)
            told |= {"pid": process.fork.pid, "second": asdict(second)}
            told |= {"code": process.end(), "errors": process.errors}
        return told

    made, told = once(tmp_path_factory, "broken-off", run)
    return made / "out", told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_good_order_and_it_goes_on_later(broken_off, number, code):
    """In the middle of the work: one line, no process left, then done."""
    _, told = broken_off
    ended, errors, children, left = told["signals"][number.name]
    assert ended == code, errors
    assert errors == "voxelmill: interrupted; start it again and it goes on where it was\n"
    assert children > 0 == left
    assert told["code"] == 0, told["errors"]


def test_two_runs_into_one_folder_do_not_mix(broken_off):
    """The second of two runs of one source at once is told to wait; the first is not disturbed."""
    _, told = broken_off
    assert told["second"]["code"] == 3
    assert f"pid {told['pid']}" in told["second"]["err"]
    assert told["code"] == 0, told["errors"]


def test_another_organ_is_another_job_beside_the_first(finished, broken_off):
    """`--organ lungs` of a series that was run for all: its own folder, its own names, the first untouched."""
    output, _ = broken_off
    lungs = output / "lungs_segmentation_chest_ct"
    check_receipt(lungs)
    names = {path.name for path in lungs.glob("lungs_*")}
    assert names == {
        f"lungs_{side}{ending}" for side in ("lung_left", "lung_right") for ending in (".stl", "_colored.ply")
    }
    assert digests(output / WHOLE) == digests(finished.output / WHOLE)
    status = voxelmill("status", "--data", output)
    assert status.code == 0
    assert "complete" in status.out


def test_cleanup_input_deletes_nothing_beside_a_bad_object(mixed):
    """What was worked on stays, too: without a bad one it would go (see `test_run_places`)."""
    assert mixed.before
    assert digests(mixed.source) == mixed.before


def test_nifti_is_a_series_of_one_object(mixed):
    """A .nii.gz goes the same way; there is no DICOM to refer to, so no segmentation.dcm, and the receipt says so."""
    folder = mixed.output / "all_segmentation_patient_one"
    receipt = check_receipt(folder)
    assert receipt["status"] == "complete"
    assert not (folder / "segmentation.dcm").exists()
    assert any("no segmentation.dcm" in warning for warning in receipt["warnings"])


def keep_slices(folder, count):
    """Keep so many neighbours of an axial series, and whatever else lies there."""
    positions = {}
    for path in folder.rglob("*"):
        if path.is_file():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if "AXIAL" in header.ImageType:
                positions[path] = header.ImagePositionPatient[2]
    for path in sorted(positions, key=positions.__getitem__)[count:]:
        path.unlink()


@pytest.fixture(scope="module")
def real(data, tmp_path_factory) -> Finished:
    """A run of two folders of real slices, one of a tilted head with a scout, one of compressed slices."""

    def run(made):
        for name in ("ct_head_phantom_tilt_mixed_localizer", "totalseg_ct_dicom_20"):
            shutil.copytree(data / name, made / "source" / name)
        keep_slices(made / "source" / "ct_head_phantom_tilt_mixed_localizer", 12)
        arguments = ("--organ", "bones", "--format", "stl")
        return asdict(voxelmill("run", made / "source", *arguments, "--output", made / "out", "--json"))

    made, said = once(tmp_path_factory, "real", run)
    return Finished(Ended(**said), made / "source", made / "out")


@pytest.mark.data
def test_scout_tilted_slices_and_captures_in_one_folder(real):
    """The scout and the captures are skipped with their reasons; the tilted head is segmented and meshed."""
    assert real.ended.code == 0, real.ended.err
    assert [entry["reason"] for entry in real.ended.document["skipped"]] == ["localizer"]
    stages = {
        len(series["artefacts"]): {name: stage["outcome"] for name, stage in series["stages"].items()}
        for series in real.ended.document["series"]
        if "_tilt_" in series["folder"]
    }
    whole = stages[max(stages)]
    assert whole == {"thumbnail": "done", "segment": "done", "mesh": "done"} | {
        name: outcome for name, outcome in whole.items() if name not in {"thumbnail", "segment", "mesh"}
    }
    assert all(stage["thumbnail"] == "done" for stage in stages.values())


@pytest.mark.data
def test_a_jpeg2000_series_without_file_endings(real):
    """Twenty compressed slices named by their UIDs; the DICOM SEG refers to them."""
    folder = real.output / "bones_segmentation_totalseg_ct_dicom_20"
    check_receipt(folder)
    seg = pydicom.dcmread(folder / "segmentation.dcm")
    assert seg.Modality == "SEG"
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 20
    statistics = json.loads((folder / "statistics.json").read_text())
    assert statistics


def test_a_disk_without_room_is_one_clear_line(tmp_path):
    """No file may grow, as on a full disk: the folder, the reason, the next step."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("a")
    ended = subprocess.run(
        [*VOXELMILL, "run", str(tmp_path / "source"), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        # Nor may the measuring of coverage write a file there.
        env={**{k: v for k, v in os.environ.items() if not k.startswith("COV")}, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "File too large; make room there or choose another folder" in ended.stderr
