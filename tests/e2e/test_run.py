"""`voxelmill run` as a user runs it: a process, real DICOM, files on disk."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import tarfile
import zipfile

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
import trimesh
from pydicom.uid import generate_uid

from e2e.command import VOXELMILL, check_receipt, digests, voxelmill


def test_a_series_becomes_every_artefact(finished):
    """Exit code 0, one JSON document, and the files that DESIGN names."""
    ended, _, folder = finished
    assert ended.code == 0, ended.err
    assert ended.document["exit_code"] == 0
    assert [series["status"] for series in ended.document["series"]] == ["complete"]
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
    assert {f"thumbnails/instance-{n}-{size}.webp" for n in (1, 44) for size in (64, 256)} <= names
    for segment in ("lung_left", "lung_right", "bones"):
        assert {f"all_{segment}.stl", f"all_{segment}_colored.ply", f"all_{segment}.obj"} <= names


def test_the_receipt_names_every_file_with_its_digest(finished):
    """Inputs with their content, the stages with their times, artefacts with size and SHA-256."""
    _, _, folder = finished
    receipt = check_receipt(folder)
    assert len(receipt["inputs"]) == 44
    assert set(receipt["stages"]) >= {"thumbnail", "segment", "mesh"}
    assert all(stage["seconds"]["domain"] > 0 for stage in receipt["stages"].values() if stage["outcome"] == "done")
    assert len(receipt["trace_id"]) == 32


def test_the_meshes_lie_in_the_patient_and_left_is_left(finished, phantom):
    """Vertices are LPS millimetres inside the volume's box; the left lung is on the patient's left (x grows)."""
    _, _, folder = finished
    corners = np.array([[i, j, k, 1] for i in (-0.5, 111.5) for j in (-0.5, 111.5) for k in (-0.5, 43.5)])
    box = (phantom.affine @ corners.T).T[:, :3]
    centres = {}
    for path in folder.glob("all_*.stl"):
        mesh = trimesh.load(path)
        assert (mesh.bounds[0] >= box.min(0) - 1e-3).all(), path.name
        assert (mesh.bounds[1] <= box.max(0) + 1e-3).all(), path.name
        centres[path.stem.removeprefix("all_")] = mesh.bounds.mean(0)
    assert centres["lung_left"][0] > centres["lung_right"][0]
    image = nibabel.load(folder / "labelmap.nii.gz")
    assert np.allclose(np.diag([-1, -1, 1, 1]) @ image.affine, phantom.affine, atol=1e-4)


def test_the_same_run_again_computes_nothing(finished, series):
    """The same job has the same name: its records stand, the results are the same files."""
    ended, output, folder = finished
    before = digests(folder)
    again = voxelmill("run", series, "--organ", "all", "--output", output, "--json")
    assert again.code == 0, again.err
    assert digests(folder) == before
    assert again.document["series"][0]["job"] == ended.document["series"][0]["job"]


def test_another_organ_is_another_job_beside_the_first(finished, series):
    """`--organ lungs` of a series that was run for all: its own folder, its own names, the first untouched."""
    _, output, folder = finished
    before = digests(folder)
    ended = voxelmill(
        "run", series, "--organ", "lungs", "--format", "stl,ply", "--reduction-percent", "50", "--output", output
    )
    assert ended.code == 0, ended.err
    lungs = output / "lungs_segmentation_chest_ct"
    check_receipt(lungs)
    names = {path.name for path in lungs.glob("lungs_*")}
    assert names == {
        f"lungs_{side}{ending}" for side in ("lung_left", "lung_right") for ending in (".stl", "_colored.ply")
    }
    assert digests(folder) == before
    status = voxelmill("status", "--data", output)
    assert status.code == 0
    assert "complete" in status.out


def test_paths_may_hold_what_addresses_may_not(series, tmp_path):
    """`#`, `?` and `%41` in the destination are part of its name, and nothing is written beside it."""
    output = tmp_path / "out#1?x=%41 é"
    ended = voxelmill("run", series, "--organ", "lungs", "--output", output, "--json")
    assert ended.code == 0, ended.err
    check_receipt(output / "lungs_segmentation_chest_ct")
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert voxelmill("status", "--data", output).code == 0


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_as_good_as_a_folder(series, finished, tmp_path, kind):
    """The same label map and meshes come out of a zip and of a tar."""
    _, _, folder = finished
    archive = tmp_path / f"study.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for path in sorted(series.iterdir()):
                target.write(path, f"some folder/{path.name}")
    else:
        with tarfile.open(archive, "w:gz") as target:
            target.add(series, "some folder")
    ended = voxelmill("run", archive, "--output", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    made = digests(tmp_path / "out" / "all_segmentation_study")
    expected = digests(folder)
    del made["receipt.json"], expected["receipt.json"]  # they tell of times and of where the inputs lie
    assert made == expected


def test_bad_objects_are_listed_and_the_rest_is_done(series, tmp_path):
    """A truncated slice, a text file, an empty file and a report among good slices: exit code 1, each with its reason."""
    source = tmp_path / "mixed"
    shutil.copytree(series, source)
    good = sorted(source.iterdir())
    (source / "truncated.dcm").write_bytes(_another_instance(good[0])[:-1000])
    (source / "notes.txt").write_text("not an image")
    (source / "empty.dcm").touch()
    ended = voxelmill("run", source, "--organ", "lungs", "--output", tmp_path / "out", "--json")
    assert ended.code == 1
    rejected = {entry["object"]: entry["reason"] for entry in ended.document["rejected"]}
    assert set(rejected) >= {"truncated.dcm", "empty.dcm"}
    assert rejected["truncated.dcm"] == "truncated"
    assert [series["status"] for series in ended.document["series"]] == ["complete"]


def _another_instance(path):
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    from io import BytesIO

    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def without_slices(series, folder, numbers):
    """Copy a series, but for the slices with these Instance Numbers."""
    shutil.copytree(series, folder)
    for path in list(folder.iterdir()):
        if int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber) in numbers:
            path.unlink()
    return folder


def test_missing_slices_fail_the_segmentation_with_the_reason_and_keep_the_pictures(series, tmp_path):
    """A wrong volume is worse than none: the stage fails and says which slices are missing."""
    source = without_slices(series, tmp_path / "gap", {20, 21, 22, 23})
    ended = voxelmill("run", source, "--output", tmp_path / "out", "--json")
    assert ended.code == 1
    (failed,) = ended.document["failed"]
    assert (failed["stage"], failed["error_class"]) == ("segment", "missing-slices")
    assert "4 slices are missing" in failed["reason"]
    receipt = check_receipt(tmp_path / "out" / "all_segmentation_gap")
    assert receipt["status"] == "partial"
    assert (tmp_path / "out" / "all_segmentation_gap" / "thumbnails" / "instance-1-256.webp").exists()


def test_one_missing_slice_is_filled_in_and_told(series, tmp_path):
    """The series is worked on, and the receipt says which slice was not acquired."""
    source = without_slices(series, tmp_path / "gap", {20})
    ended = voxelmill("run", source, "--output", tmp_path / "out", "--organ", "lungs", "--format", "stl", "--json")
    assert ended.code == 0, ended.err
    receipt = check_receipt(tmp_path / "out" / "lungs_segmentation_gap")
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


def test_two_runs_into_one_folder_do_not_mix(series, tmp_path):
    """The second of two runs of one source at once is told to wait; the first is not disturbed."""
    arguments = ["run", str(series), "--organ", "lungs", "--output", str(tmp_path / "out")]
    first = subprocess.Popen([*VOXELMILL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        first.stdout.readline()  # it has begun
        second = voxelmill(*arguments)
        assert second.code == 3
        assert f"pid {first.pid}" in second.err
        _, errors = first.communicate(timeout=120)
        assert first.returncode == 0, errors
    finally:
        first.kill()
        first.communicate()


def test_cleanup_input_deletes_what_is_done_and_only_then(series, tmp_path):
    """With a bad object among them nothing is deleted; without one all are."""
    source = tmp_path / "source"
    shutil.copytree(series, source)
    (source / "empty.dcm").touch()
    arguments = ("run", source, "--organ", "lungs", "--output", tmp_path / "out", "--cleanup-input")
    assert voxelmill(*arguments).code == 1
    assert len(list(source.iterdir())) == 45
    (source / "empty.dcm").unlink()
    assert voxelmill(*arguments).code == 0
    assert list(source.iterdir()) == []


def test_nifti_is_a_series_of_one_object(phantom, tmp_path):
    """A .nii.gz goes the same way; there is no DICOM to refer to, so no segmentation.dcm, and the receipt says so."""
    image = nibabel.Nifti1Image(phantom.voxels.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ phantom.affine)
    path = tmp_path / "patient one.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), 1))
    ended = voxelmill("run", path, "--organ", "lungs", "--output", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    folder = tmp_path / "out" / "lungs_segmentation_patient_one"
    receipt = check_receipt(folder)
    assert not (folder / "segmentation.dcm").exists()
    assert any("no segmentation.dcm" in warning for warning in receipt["warnings"])


@pytest.mark.data
def test_scout_tilted_slices_and_captures_in_one_folder(data, tmp_path):
    """The scout and the captures are skipped with their reasons; the tilted head is segmented and meshed."""
    ended = voxelmill("run", data / "ct_head_phantom_tilt_mixed_localizer", "--output", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    assert [entry["reason"] for entry in ended.document["skipped"]] == ["localizer"]
    stages = {
        len(series["artefacts"]): {name: stage["outcome"] for name, stage in series["stages"].items()}
        for series in ended.document["series"]
    }
    whole = stages[max(stages)]
    assert whole == {"thumbnail": "done", "segment": "done", "mesh": "done"} | {
        name: outcome for name, outcome in whole.items() if name not in {"thumbnail", "segment", "mesh"}
    }
    assert all(stage["thumbnail"] == "done" for stage in stages.values())


@pytest.mark.data
def test_a_jpeg2000_series_without_file_endings(data, tmp_path):
    """Twenty compressed slices named by their UIDs; the DICOM SEG refers to them."""
    ended = voxelmill("run", data / "totalseg_ct_dicom_20", "--output", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    folder = tmp_path / "out" / "all_segmentation_totalseg_ct_dicom_20"
    check_receipt(folder)
    seg = pydicom.dcmread(folder / "segmentation.dcm")
    assert seg.Modality == "SEG"
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 20
    statistics = json.loads((folder / "statistics.json").read_text())
    assert statistics


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_good_order_and_it_goes_on_later(series, tmp_path, number, code):
    """In the middle of the work: one line, no process left, then done."""
    arguments = ["run", str(series), "--organ", "lungs", "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*VOXELMILL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # the workers are up, and so are their children
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert errors == "voxelmill: interrupted; start it again and it goes on where it was\n"
        assert psutil.wait_procs(children, timeout=10)[1] == []
    finally:
        process.kill()
        process.communicate()
    assert voxelmill(*arguments).code == 0


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
