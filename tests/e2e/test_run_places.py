"""Where `voxelmill run` reads and writes: sources of one name, results among the input, links, replaced files."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict

import pydicom
import pytest

from e2e.command import Ended, check_receipt, digests, voxelmill
from e2e.sharing import once

BONES = ("--organ", "bones", "--format", "stl")


def uid_of(folder):
    return json.loads((folder / "receipt.json").read_text())["series_instance_uid"]


@pytest.fixture(scope="module")
def places(pictures, small, tmp_path_factory):
    """Runs one after the other: two sources of one name into one folder, the second of them again, then all at once.

    The folder of results lies in the source of the last run, which deletes its input.
    """

    def run(made):
        source = made / "source"
        shutil.copytree(pictures, source / "CT")
        (source / "notes.txt").write_text("not an image, and not ours to delete")
        runs, seen = [], []
        for one in (source / "CT", small[1], small[1]):
            runs.append(voxelmill("run", one, *BONES, "--output", source / "results", "--json"))
            seen.append(digests(source / "results"))
        runs.append(voxelmill("run", source, *BONES, "--output", made / "second", "--cleanup-input", "--json"))
        return [[asdict(ended) for ended in runs], seen]

    made, (told, seen) = once(tmp_path_factory, "places", run)
    return made, [Ended(**one) for one in told], seen


def test_two_sources_of_one_name_keep_their_results_apart(places):
    """The second gets a folder with the UID's end, now and when it is run again."""
    made, runs, _ = places
    assert [ended.code for ended in runs[:3]] == [0, 0, 0], runs
    folders = sorted(path for path in (made / "source" / "results").iterdir() if path.name.startswith("bones_"))
    assert len(folders) == 2
    assert len({uid_of(folder) for folder in folders}) == 2
    for folder in folders:
        check_receipt(folder)


def test_the_same_run_again_computes_nothing(places):
    """The same job has the same name: its records stand, the results are the same files."""
    _, runs, (_, before, after) = places
    assert [series["job"] for series in runs[1].document["series"]] == [
        series["job"] for series in runs[2].document["series"]
    ]
    # A record holds the times of its work: done again, it would be another one.
    kept = {name: digest for name, digest in before.items() if "/stages/" in name or not name.startswith(".voxelmill")}
    assert any(name.endswith("/stages/mesh.json") for name in kept)
    assert any(name.endswith(".stl") for name in kept)
    assert kept.items() <= after.items()


def test_results_of_other_runs_are_no_input(places):
    """Label maps and meshes that lie in the source are left out, by what their receipts name."""
    _, runs, _ = places
    assert runs[3].code == 0, runs[3].err
    assert runs[3].document["objects"] == 5
    assert len(runs[3].document["series"]) == 1


def test_cleanup_input_keeps_what_was_skipped(places):
    """Only what was worked on is deleted: a report beside the slices stays, and so do results of other runs."""
    made, runs, _ = places
    assert runs[3].code == 0, runs[3].err
    assert sorted(path.name for path in (made / "source").iterdir()) == ["notes.txt", "results"]


def test_members_of_archives_have_names_that_people_know_and_headers_no_markup(small, tmp_path):
    """A broken file in a zip is `study.zip!folder/broken.dcm`, not a key of ours; nothing of a header is a command.

    A modality of brackets and escapes ends no command in a traceback, and reaches no terminal.
    """
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(small[0].iterdir()):
            dataset = pydicom.dcmread(path)
            dataset["Modality"]._value = "[/b]\x1b[31m"
            dataset.save_as(tmp_path / "one.dcm")
            target.write(tmp_path / "one.dcm", f"folder/{path.name}")
        target.writestr("folder/broken.dcm", b"")
    ended = voxelmill("run", archive, *BONES, "--output", tmp_path / "out")
    assert ended.code == 1
    rejected = [line for line in ended.out.splitlines() if line.startswith("rejected: ")]
    assert [line.split(": ")[1] for line in rejected] == ["study.zip!folder/broken.dcm"]
    assert "\x1b" not in ended.out + ended.err
    status = voxelmill("status", "--data", tmp_path / "out")
    assert status.code == 0, status.err
    assert "\x1b" not in status.out


@pytest.mark.parametrize("arguments", [("run", "", "--output", "out"), ("run", ".", "--output", "")])
def test_empty_paths_are_wrong_usage(arguments, tmp_path):
    """An empty path is not the current folder."""
    ended = voxelmill(*arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "is empty" in ended.err
    assert list(tmp_path.iterdir()) == []
