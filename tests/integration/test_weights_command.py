"""`voxelmill weights`, and what `run` looks at before any work, as a user sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from e2e.command import voxelmill
from unit.segment.test_totalsegmentator_weights import MODEL, NAME, make_dataset, zipped
from voxelmill_cli.app import app
from voxelmill_segment.totalsegmentator import library, tasks
from voxelmill_segment.totalsegmentator.weights import WeightsFolder
from voxelmill_shared.plan import Organ, Plan, Resolution

if TYPE_CHECKING:
    from pathlib import Path

SIX_MM = "Dataset298_TotalSegmentator_total_6mm_1559subj"

pytestmark = pytest.mark.usefixtures("totalsegmentator")


def make_six_mm(where: Path, content: bytes = b"numbers") -> Path:
    """A data set of `total` at 6 mm that looks whole. No network is loaded here."""
    made = make_dataset(where, SIX_MM, content)
    (made / MODEL).rename(made / "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres")
    return made


def test_weights_are_listed_imported_verified_and_digested(tmp_path):
    """The way of a machine without internet: a zip comes in, and its digest can be pinned."""
    path = zipped(make_six_mm(tmp_path / "given"), tmp_path / "w.zip")
    before = voxelmill("weights", "list", "total", "--json", cwd=tmp_path)
    assert before.code == 0
    assert {row["state"] for row in before.document} == {"missing"}
    assert len(before.document) == 7
    imported = voxelmill("weights", "import", path, cwd=tmp_path)
    assert (imported.code, imported.out.split(",")[0]) == (0, f"{SIX_MM}: imported")
    (row,) = [row for row in voxelmill("weights", "list", "--json", cwd=tmp_path).document if row["state"] == "here"]
    assert row["name"] == SIX_MM
    assert {"total", "lung_nodules", "hip_implant"} <= set(row["tasks"])
    assert len(row["sha256"]) == 64
    request = tasks.resolve(Plan(resolution=Resolution.FASTEST, organ=Organ.LUNGS), "CT")
    digest = voxelmill("weights", "digest", "--resolution", "fastest", "--organ", "lungs", cwd=tmp_path)
    assert digest.out.strip() == WeightsFolder(tmp_path / "voxelmill-data/weights").digest(request.all_networks)
    assert voxelmill("weights", "verify", cwd=tmp_path).code == 0
    checkpoint = next((tmp_path / "voxelmill-data/weights").rglob("*.pth"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    verified = voxelmill("weights", "verify", cwd=tmp_path)
    assert verified.code == 1
    assert "checkpoint_final.pth: other content than was recorded" in verified.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["weights", "import", "nowhere"], 1, "nowhere: no such folder or zip"),
        (["weights", "verify"], 2, "holds no weights; `voxelmill weights import` brings them"),
        (["weights", "verify", "Dataset001_x"], 2, "Dataset001_x: not in"),
        (["weights", "list", "nonsense"], 2, "there is no such task"),
        (["weights", "download", "total_v3"], 2, "not known to be open"),
        (["weights", "download", "brain_aneurysm"], 2, "not for commercial use"),
        (["weights", "download", "face"], 2, "needs a licence number"),
        (["weights", "digest"], 3, "weights are missing in"),
        (["run", "x", "-o", "y", "--model", "totalsegmentator"], 3, "weights are missing in"),
        (["run", "x", "-o", "y", "--model", "totalsegmentator", "--task", "face"], 2, "needs a licence number"),
        (["run", "x", "-o", "y", "--model", "totalsegmentator", "--task", "a b"], 2, "no name of a task"),
        (
            ["run", "x", "-o", "y", "--model", "totalsegmentator", "--task", "teeth", "--resolution", "fast"],
            2,
            "the task teeth has one resolution",
        ),
        (["run", "x", "-o", "y", "--organ", "heart"], 2, "cannot tell heart from its surroundings"),
        (["run", "x", "-o", "y", "--task", "total"], 2, "the model threshold has no tasks"),
        (["up", "--model", "totalsegmentator", "--data", "d"], 3, "weights are missing in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_before_any_work(tmp_path, monkeypatch, arguments, code, said):
    """Nothing is made, nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == code, ended.output
    assert said in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_licensed_task_is_not_downloaded_from_where_it_does_not_lie(tmp_path):
    """With a number the task may be used; its weights come by the library's own tool."""
    environment = {"VOXELMILL_TOTALSEGMENTATOR_LICENSE": "aca_0123456789ABCD"}
    ended = CliRunner(env=environment).invoke(app, ["weights", "download", "face", "--weights", str(tmp_path)])
    assert ended.exit_code == 2
    assert "totalseg_download_weights, then `voxelmill weights import`" in ended.stderr
    assert "aca_0123456789ABCD" not in ended.output


def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path):
    """Before the work, with what was asked for and what is here."""
    make_six_mm(tmp_path)
    environment = {"VOXELMILL_WEIGHTS": str(tmp_path), "VOXELMILL_WEIGHTS_DIGEST": "0" * 64}
    arguments = ["run", "x", "-o", "y", "--model", "totalsegmentator", "--resolution", "fastest"]
    ended = CliRunner(env=environment).invoke(app, arguments)
    assert ended.exit_code == 3
    assert "asks for weights 000000000000, this worker has" in ended.stderr


def test_without_the_extra_every_command_says_how_to_install_it(tmp_path):
    """Exit code 2, before any work; the rest of the command works without."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
    )
    line = "the model totalsegmentator is not installed: make setup-totalsegmentator (in a clone), or pip install 'voxelmill-segment[totalsegmentator]'"
    for arguments in (
        ["run", "x", "-o", "y", "--model", "totalsegmentator"],
        ["weights", "download", "total"],
    ):
        ended = voxelmill(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert (ended.code, ended.err.strip()) == (2, f"voxelmill: {line}")
    doctor = voxelmill("doctor", "--json", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    (found,) = [one for one in doctor.document if one["name"] == "totalsegmentator"]
    assert (doctor.code, found["good"], found["mend"]) == (0, True, library.INSTALL)


def test_doctor_says_which_weights_are_here(tmp_path):
    """And at which resolutions the usual task could be computed with them."""
    make_six_mm(tmp_path / "w")
    found = {one["name"]: one for one in voxelmill("doctor", "--json", VOXELMILL_WEIGHTS=str(tmp_path / "w")).document}
    assert found["weights"]["detail"].startswith("1 data sets, ")
    assert found["weights"]["detail"].endswith("total can be computed fastest")
    assert found["gpu"]["good"]


def test_weights_come_out_of_a_bucket(bucket, s3_environment, tmp_path):
    """A folder and a zip under one prefix; a prefix without weights says so, and nothing is left of either."""
    made = make_six_mm(tmp_path / "given/deep")
    zipped(make_dataset(tmp_path / "other"), tmp_path / "given/other.zip")
    client = s3_environment.client()
    for path in (tmp_path / "given").rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"models/{path.relative_to(tmp_path / 'given')}")
    client.put_object(Bucket=bucket, Key="none/readme", Body=b"x")
    imported = voxelmill("weights", "import", f"s3://{bucket}/models", cwd=tmp_path)
    assert imported.code == 0, imported.err
    weights, given = WeightsFolder(tmp_path / "voxelmill-data/weights"), WeightsFolder(made.parent)
    assert [one.name for one in weights.datasets()] == [SIX_MM, NAME]
    assert weights.dataset(SIX_MM).digest == given.dataset(SIX_MM).digest
    assert weights.verify(SIX_MM) == weights.verify(NAME) == ()
    none = voxelmill("weights", "import", f"s3://{bucket}/none", cwd=tmp_path)
    assert (none.code, none.err.split(";")[0]) == (1, f"voxelmill: s3://{bucket}/none: holds no weights")
    assert list((weights.path / ".incoming").iterdir()) == []
