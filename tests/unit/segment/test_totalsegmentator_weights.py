"""The weights folder: whole data sets or none, told by their digests."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import pytest

from voxelmill_segment.totalsegmentator.library import Network
from voxelmill_segment.totalsegmentator.weights import (
    RECORD,
    MissingWeightsError,
    OtherWeightsError,
    WeightsFolder,
    combined,
)
from voxelmill_segment.totalsegmentator.weights_import import (
    Imported,
    WeightsRefusedError,
    adopt_folder,
    import_path,
    staging,
)

if TYPE_CHECKING:
    from pathlib import Path

NAME = "Dataset901_small"
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def network(name: str = NAME, folds: tuple[int, ...] | None = (0,)) -> Network:
    """A network of this data set."""
    return Network(int(name[7:10]), name, "nnUNetTrainer", "nnUNetPlans", "3d_fullres", folds, None, ((1, 1),))


def make_dataset(where: Path, name: str = NAME, content: bytes = b"numbers") -> Path:
    """Write a data set as nnU-Net lays it out; a checkpoint of torch is a zip."""
    model = where / name / MODEL
    (model / "fold_0").mkdir(parents=True)
    (model / "dataset.json").write_text("{}")
    (model / "plans.json").write_text("{}")
    with zipfile.ZipFile(model / "fold_0" / "checkpoint_final.pth", "w") as archive:
        archive.writestr("data.pkl", content)
    return where / name


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    """Pack a data set's folder."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{prefix}{path.relative_to(folder.parent)}")
    return target


@pytest.fixture
def weights(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "weights")


def outcomes(done: tuple[Imported, ...]) -> list[tuple[str, str]]:
    return [(one.dataset.name, one.outcome) for one in done]


def left_over(weights: WeightsFolder) -> list[Path]:
    """What imports have left beside the data sets."""
    return list((weights.path / ".incoming").iterdir())


def test_a_folder_is_imported_with_a_record_of_every_file(weights: WeightsFolder, tmp_path: Path) -> None:
    """Size and SHA-256 of each file are written down, and verify finds nothing wrong."""
    source = make_dataset(tmp_path / "given")
    assert outcomes(import_path(weights, tmp_path / "given")) == [(NAME, "imported")]
    record = json.loads((weights.path / NAME / RECORD).read_text())
    checkpoint = (source / MODEL / "fold_0" / "checkpoint_final.pth").read_bytes()
    entry = record["files"][f"{MODEL}/fold_0/checkpoint_final.pth"]
    assert entry["sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert entry["size"] == len(checkpoint)
    assert weights.verify(NAME) == ()
    assert weights.missing([network()]) == ()
    assert left_over(weights) == []


@pytest.mark.parametrize("depth", ["", "nnunet/results/"])
def test_a_zip_is_imported_from_whatever_depth(weights: WeightsFolder, tmp_path: Path, depth: str) -> None:
    """The publisher's zips hold the data set at the top; a zip of a whole home holds it deeper."""
    made = make_dataset(tmp_path / "given")
    path = zipped(made, tmp_path / "w.zip", depth)
    assert outcomes(import_path(weights, path)) == [(NAME, "imported")]
    import_path(WeightsFolder(tmp_path / "other"), made)
    assert weights.digest([network()]) == WeightsFolder(tmp_path / "other").digest([network()])


@pytest.mark.parametrize(
    "member",
    [f"../{NAME}/x", f"/{NAME}/x", f"{NAME}/../../x", f"{NAME}/a\\..\\b", f"C:/{NAME}/x", f"{NAME}//x"],
)
def test_a_zip_that_would_write_elsewhere_is_refused_whole(weights: WeightsFolder, tmp_path: Path, member: str) -> None:
    """Not even its good members are taken."""
    path = zipped(make_dataset(tmp_path / "given"), tmp_path / "w.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, b"x")
    with pytest.raises(WeightsRefusedError, match="written elsewhere; refused"):
        import_path(weights, path)
    assert weights.datasets() == ()
    assert not (tmp_path / "x").exists()


def test_a_zip_with_a_link_is_refused(weights: WeightsFolder, tmp_path: Path) -> None:
    """A link in a zip points wherever its maker wants."""
    path = zipped(make_dataset(tmp_path / "given"), tmp_path / "w.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(f"{NAME}/{MODEL}/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(WeightsRefusedError, match="is a link"):
        import_path(weights, path)


def test_what_is_cut_off_is_refused_and_leaves_nothing(weights: WeightsFolder, tmp_path: Path) -> None:
    """A zip without its end, a zip with a damaged member, a checkpoint without its end."""
    whole = zipped(make_dataset(tmp_path / "given"), tmp_path / "w.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsRefusedError, match="its end is missing"):
        import_path(weights, cut)
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(tmp_path / "w.zip") as archive:
        place = archive.getinfo(f"{NAME}/{MODEL}/fold_0/checkpoint_final.pth").header_offset
    damaged.write_bytes(whole[: place + 120] + bytes([whole[place + 120] ^ 255]) + whole[place + 121 :])
    with pytest.raises(WeightsRefusedError, match="cannot be unpacked"):
        import_path(weights, damaged)
    checkpoint = tmp_path / "given" / NAME / MODEL / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:60])
    with pytest.raises(WeightsRefusedError, match="damaged or cut off"):
        import_path(weights, tmp_path / "given")
    assert weights.datasets() == ()
    assert left_over(weights) == []


@pytest.mark.parametrize("lacks", ["dataset.json", "plans.json", "fold_0"])
def test_a_folder_without_a_whole_model_holds_no_weights(weights: WeightsFolder, tmp_path: Path, lacks: str) -> None:
    """nnU-Net needs all three, and a data set that lacks one counts as missing."""
    made = make_dataset(weights.path)
    (made / MODEL / lacks).rename(tmp_path / "away")
    assert weights.missing([network()]) == (NAME,)
    assert weights.datasets() == ()
    with pytest.raises(WeightsRefusedError, match="holds no weights"):
        import_path(WeightsFolder(tmp_path / "other"), weights.path)


def test_the_same_again_is_present_and_other_content_needs_a_word(weights: WeightsFolder, tmp_path: Path) -> None:
    """Results that were computed with the old weights are not to change unnoticed."""
    make_dataset(tmp_path / "a")
    make_dataset(tmp_path / "b", content=b"others")
    import_path(weights, tmp_path / "a")
    assert outcomes(import_path(weights, tmp_path / "a")) == [(NAME, "present")]
    before = weights.digest([network()])
    with pytest.raises(WeightsRefusedError, match="--replace puts this in its place"):
        import_path(weights, tmp_path / "b")
    assert weights.digest([network()]) == before
    assert outcomes(import_path(weights, tmp_path / "b", replace=True)) == [(NAME, "replaced")]
    assert weights.digest([network()]) != before
    assert left_over(weights) == []


def test_what_was_damaged_in_place_is_found_and_named(weights: WeightsFolder, tmp_path: Path) -> None:
    """Changed, cut off, gone and added files, each by its name; the same size is no excuse."""
    make_dataset(tmp_path / "given")
    import_path(weights, tmp_path / "given")
    model = weights.path / NAME / MODEL
    (model / "plans.json").write_text("[]")
    (model / "dataset.json").unlink()
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    (model / "more.json").write_text("{}")
    lines = "\n".join(weights.verify(NAME))
    assert f"{NAME}/{MODEL}/plans.json: other content than was recorded" in lines
    assert f"{NAME}/{MODEL}/dataset.json: missing" in lines
    assert "checkpoint_final.pth: 0 bytes, recorded are" in lines
    assert f"{NAME}/{MODEL}/more.json: not recorded" in lines


def test_weights_that_lay_there_already_can_be_used_and_recorded(weights: WeightsFolder) -> None:
    """A folder that another program has filled works; to verify it, it is recorded first."""
    make_dataset(weights.path)
    digest = weights.digest([network()])
    assert "was never recorded" in weights.verify(NAME)[0]
    assert outcomes(import_path(weights, weights.path)) == [(NAME, "recorded")]
    assert weights.verify(NAME) == ()
    assert weights.digest([network()]) == digest


def test_a_digest_is_of_what_is_there_and_not_of_what_was_recorded(weights: WeightsFolder, tmp_path: Path) -> None:
    """A file that was changed since gives another digest, so a receipt never names weights that were not used."""
    make_dataset(tmp_path / "given")
    import_path(weights, tmp_path / "given")
    before = weights.digest([network()])
    plans = weights.path / NAME / MODEL / "plans.json"
    found = plans.stat()
    plans.write_text('{"a": 1}')
    os.utime(plans, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert weights.digest([network()]) != before


def test_a_request_has_one_digest_whatever_the_order(weights: WeightsFolder) -> None:
    """It is the digest of names and digests."""
    for name in (NAME, "Dataset902_other"):
        make_dataset(weights.path, name)
    one, other = network(), network("Dataset902_other")
    assert weights.digest([one, other]) == weights.digest([other, one])
    assert weights.digest([one, other]) == combined(
        {NAME: weights.dataset(NAME).digest, "Dataset902_other": weights.dataset("Dataset902_other").digest}
    )
    assert weights.digest([one]) != weights.digest([one, other])


def test_missing_weights_are_named_with_the_way_to_bring_them(weights: WeightsFolder) -> None:
    """The error crosses from the child process to the service whole."""
    with pytest.raises(MissingWeightsError) as caught:
        weights.require([network(), network("Dataset902_other")])
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert str(again) == str(caught.value)
    assert again.folders == (NAME, "Dataset902_other")
    assert "voxelmill weights download" in str(again)


def test_a_pinned_digest_must_agree(weights: WeightsFolder) -> None:
    """Any of those that the plan names will do; none pins nothing."""
    make_dataset(weights.path)
    digest = weights.digest([network()])
    assert weights.agree("", [network()]) == digest
    assert weights.agree(f"{'0' * 64}+{digest}", [network()]) == digest
    with pytest.raises(OtherWeightsError, match=f"asks for weights 000000000000, this worker has {digest[:12]}"):
        weights.agree("0" * 64, [network()])


def test_every_fold_that_is_averaged_must_be_there(weights: WeightsFolder) -> None:
    """Five folds are five checkpoints; where any will do, one is enough."""
    make_dataset(weights.path)
    assert weights.missing([network(folds=None)]) == ()
    assert weights.missing([network(folds=(0, 1))]) == (NAME,)


def test_what_a_killed_import_left_is_removed_by_the_next_and_never_seen(
    weights: WeightsFolder, tmp_path: Path
) -> None:
    """The folder of an import that is under way is left alone."""
    left = weights.path / ".incoming" / "dead" / NAME / MODEL
    left.mkdir(parents=True)
    assert weights.datasets() == ()
    make_dataset(tmp_path / "given")
    with staging(weights) as alive:
        import_path(weights, tmp_path / "given")
        assert alive.is_dir()
        assert left_over(weights) == [alive]
    assert left_over(weights) == []


def _import(weights: Path, source: Path, barrier) -> None:
    barrier.wait()
    import_path(WeightsFolder(weights), source)


def test_two_imports_at_once_leave_one_whole_data_set(weights: WeightsFolder, tmp_path: Path) -> None:
    """Neither fails, and nothing is left beside."""
    path = zipped(make_dataset(tmp_path / "given", content=os.urandom(1 << 20)), tmp_path / "w.zip")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_import, args=(weights.path, path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert weights.verify(NAME) == ()
    assert left_over(weights) == []


def test_a_staging_folder_is_adopted_without_a_copy(weights: WeightsFolder, tmp_path: Path) -> None:
    """Folders and zips that were fetched from a bucket; the record says from where."""
    with staging(weights) as stage:
        made = make_dataset(stage / "prefix")
        inode = (made / MODEL / "plans.json").stat().st_ino
        zipped(make_dataset(tmp_path / "given", "Dataset902_other"), stage / "o.zip")
        done = adopt_folder(weights, stage, "s3://bucket/prefix")
    assert outcomes(done) == [("Dataset902_other", "imported"), (NAME, "imported")]
    assert (weights.path / NAME / MODEL / "plans.json").stat().st_ino == inode
    assert json.loads((weights.path / NAME / RECORD).read_text())["source"] == "s3://bucket/prefix"
    with staging(weights) as stage, pytest.raises(WeightsRefusedError, match="s3://bucket/none: holds no weights"):
        adopt_folder(weights, stage, "s3://bucket/none")
