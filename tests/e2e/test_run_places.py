"""Where `voxelmill run` reads and writes: sources of one name, results among the input, links, replaced files."""

from __future__ import annotations

import json
import shutil
import zipfile

import pydicom
import pytest

from e2e.command import check_receipt, voxelmill
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two small series in folders of one name: quick to run, since ten slices of 32 x 32 hold no lungs."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"patient{seed}") / "CT"
        plan = PhantomPlan(seed=seed, rows=32, columns=32, slices=10, pixel_mm=12.0, slice_mm=30.0)
        write_series(folder, make_phantom(plan))
        folders.append(folder)
    return folders


def uid_of(folder):
    return json.loads((folder / "receipt.json").read_text())["series_instance_uid"]


def test_two_sources_of_one_name_keep_their_results_apart(small, tmp_path):
    """The second gets a folder with the UID's end, now and when it is run again."""
    output = tmp_path / "out"
    for source in (*small, small[1]):
        ended = voxelmill("run", source, "--organ", "bones", "--format", "stl", "--output", output, "--json")
        assert ended.code == 0, ended.err
    folders = sorted(path for path in output.iterdir() if path.name.startswith("bones_"))
    assert len(folders) == 2
    assert len({uid_of(folder) for folder in folders}) == 2
    for folder in folders:
        check_receipt(folder)


def test_results_of_other_runs_are_no_input(small, tmp_path):
    """Label maps and meshes that lie in the source are left out, by what their receipts name."""
    source = tmp_path / "source"
    shutil.copytree(small[0], source / "CT")
    assert voxelmill("run", source / "CT", "--organ", "bones", "--output", source / "first").code == 0
    ended = voxelmill("run", source, "--organ", "bones", "--output", tmp_path / "second", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["objects"] == 10
    assert len(ended.document["series"]) == 1


def test_what_a_header_says_is_neither_markup_nor_a_command(small, tmp_path):
    """A modality of brackets and escapes ends no command in a traceback, and reaches no terminal."""
    source = tmp_path / "source"
    shutil.copytree(small[0], source)
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        dataset["Modality"]._value = "[/b]\x1b[31m"
        dataset.save_as(path)
    ended = voxelmill("run", source, "--output", tmp_path / "out")
    assert "\x1b" not in ended.out + ended.err
    status = voxelmill("status", "--data", tmp_path / "out")
    assert status.code == 0, status.err
    assert "\x1b" not in status.out


def test_cleanup_input_keeps_what_was_skipped(small, tmp_path):
    """Only what was worked on is deleted: a report beside the slices stays."""
    source = tmp_path / "source"
    shutil.copytree(small[0], source)
    (source / "notes.txt").write_text("not an image, and not ours to delete")
    ended = voxelmill("run", source, "--organ", "bones", "--output", tmp_path / "out", "--cleanup-input")
    assert ended.code == 0, ended.err
    assert [path.name for path in source.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("arguments", [("run", "", "--output", "out"), ("run", ".", "--output", "")])
def test_empty_paths_are_wrong_usage(arguments, tmp_path):
    """An empty path is not the current folder."""
    ended = voxelmill(*arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "is empty" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_members_of_archives_have_names_that_people_know(small, tmp_path):
    """A broken file in a zip is `study.zip!folder/broken.dcm`, not a key of ours."""
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(small[0].iterdir()):
            target.write(path, f"folder/{path.name}")
        target.writestr("folder/broken.dcm", b"")
    ended = voxelmill("run", archive, "--organ", "bones", "--output", tmp_path / "out", "--json")
    assert ended.code == 1
    assert [entry["object"] for entry in ended.document["rejected"]] == ["study.zip!folder/broken.dcm"]
