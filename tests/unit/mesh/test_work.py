"""The whole work of the mesh stage, file in, files out."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import trimesh

from unit.mesh.shapes import ellipsoid
from unit.mesh.solids import ball
from voxelmill_mesh.label_map import read_label_map, renumber, survey
from voxelmill_mesh.task import MeshTask
from voxelmill_mesh.work import _worth_showing, mesh_labels
from voxelmill_mesh.writers.segment import ColouredMesh
from voxelmill_shared.child import Child, Limits
from voxelmill_shared.plan import MeshFormat, Plan, Quality
from voxelmill_shared.work import Progress, UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from voxelmill_shared.work import WorkResult

RAS = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 80], [0, 0, 2.0, -300], [0, 0, 0, 1]])
"""Of a supine patient: columns run to the left, rows to the back, so both are negative in RAS and positive in LPS."""

SEGMENTS = (
    {"number": 1, "name": "lung_left", "rgb": [120, 170, 220], "code": "ignored"},
    {"number": 4, "name": "bones", "rgb": [241, 232, 205]},
    {"number": 6, "name": "airways", "rgb": [90, 200, 170]},
)


def labels() -> NDArray[np.uint8]:
    """A lung within, bones at the last slice; no airways."""
    volume = np.zeros((30, 40, 50), np.uint8)
    ball = ellipsoid((8, 10, 12), margin=0)
    volume[4 : 4 + ball.shape[0], 5 : 5 + ball.shape[1], 20 : 20 + ball.shape[2]] = ball
    volume[25:, 30:36, 4:10] = 4
    return volume


def write_nifti(volume: NDArray[Any], path: Path, affine: NDArray[np.float64] = RAS) -> Path:
    """Write (slices, rows, columns) as NIfTI, whose first axis is the column."""
    nib.Nifti1Image(volume.transpose(2, 1, 0), affine).to_filename(path)
    return path


def run(path: Path, output: Path, segments: tuple[dict[str, Any], ...] = SEGMENTS, **plan: Any) -> WorkResult:
    """Do the work in this process."""
    return mesh_labels(MeshTask(path, segments, Plan(**plan), output), [].append)


def digests(result: WorkResult) -> dict[str, str]:
    """SHA-256 of every file."""
    return {file.name: hashlib.sha256(file.path.read_bytes()).hexdigest() for file in result.files}


def test_every_format_of_every_segment_is_written(tmp_path: Path) -> None:
    """The names of DESIGN 4, media types, measurements, the times of the steps, a warning for what is not there."""
    steps: list[Progress | str] = []
    task = MeshTask(write_nifti(labels(), tmp_path / "l.nii.gz"), SEGMENTS, Plan(), tmp_path / "out")
    result = mesh_labels(task, steps.append)
    assert [file.name for file in result.files] == [
        "meshes/lung_left.stl",
        "meshes/lung_left.ply",
        "meshes/lung_left.obj",
        "meshes/bones.stl",
        "meshes/bones.ply",
        "meshes/bones.obj",
        "meshes/materials.mtl",
        "meshes/scene.glb",
        "meshes/scene-web.glb",
        "meshes/meshes.json",
        "meshes/meshes.zip",
        "meshes/preview.png",
    ]
    assert all(file.path.is_file() and file.path.stat().st_size for file in result.files)
    assert result.warnings == ("no voxels, so no mesh: airways",)
    assert list(result.seconds) == [step for step in steps if isinstance(step, str)]
    assert [step for step in steps if isinstance(step, Progress) and step.step == "surfaces"] == [
        Progress("surfaces", 1, 2),
        Progress("surfaces", 2, 2),
    ]
    told = {step.step for step in steps if isinstance(step, Progress)}
    assert told == {"decimate", "surfaces", "measure", "write", "preview"}
    lung, bones = result.measurements["segments"]["lung_left"], result.measurements["segments"]["bones"]
    for measured, volume in ((lung, 4 / 3 * np.pi * 8 * 10 * 12 * 0.8 * 0.8 * 2), (bones, 5 * 6 * 6 * 0.8 * 0.8 * 2)):
        assert measured["watertight"] is True
        assert measured["euler_characteristic"] == 2
        assert measured["volume_ml"] == pytest.approx(volume / 1000, rel=0.1)
        assert measured["voxel_volume_ml"] == pytest.approx(volume / 1000, rel=0.05)
    assert (lung["touches_border"], bones["touches_border"]) == (False, True)


def test_left_is_left_in_the_files(tmp_path: Path) -> None:
    """NIfTI is RAS, the meshes are LPS: voxel (column, row, slice) lies where the affine says, x and y negated."""
    result = run(write_nifti(labels(), tmp_path / "l.nii.gz"), tmp_path / "out", formats=("stl",), reduction_percent=0)
    mesh = trimesh.load_mesh(tmp_path / "out" / "lung_left.stl")
    middle = (RAS @ np.array([32, 15, 12, 1]))[:3] * (-1, -1, 1)
    np.testing.assert_allclose(mesh.center_mass, middle, atol=0.3)
    low, high = result.measurements["segments"]["lung_left"]["bounding_box_lps_mm"]
    np.testing.assert_allclose([low, high], mesh.bounds, atol=1e-3)


def test_only_the_formats_asked_for_are_written(tmp_path: Path) -> None:
    """A plan with GLB alone gives the two scenes, what was measured, the zip of them and the preview."""
    result = run(write_nifti(labels(), tmp_path / "l.nii.gz"), tmp_path / "out", formats=(MeshFormat.GLB,))
    names = ["scene.glb", "scene-web.glb", "meshes.json", "meshes.zip", "preview.png"]
    assert [file.name for file in result.files] == [f"meshes/{name}" for name in names]


def test_the_same_task_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs, another folder, another process: every file is the same."""
    path = write_nifti(labels(), tmp_path / "l.nii.gz")
    assert digests(run(path, tmp_path / "one")) == digests(run(path, tmp_path / "two"))


async def test_the_work_runs_in_a_child_within_its_memory(tmp_path: Path) -> None:
    """The task and the result cross the process boundary, and so does an error; 3 GiB of address space suffice."""
    path = write_nifti(labels(), tmp_path / "l.nii.gz")
    child = Child("voxelmill_mesh.work:mesh_labels", Limits(3 << 30, 240))
    steps: list[str] = []
    try:
        result = await child.call(MeshTask(path, SEGMENTS, Plan(), tmp_path / "out"), steps.append)
        assert digests(result) == digests(run(path, tmp_path / "here"))
        assert steps[0] == "read"
        (tmp_path / "bad").write_bytes(b"no label map")
        with pytest.raises(UnsupportedSeriesError) as caught:
            await child.call(MeshTask(tmp_path / "bad", SEGMENTS, Plan(), tmp_path / "out"))
        assert caught.value.code == "label-map-unreadable"
    finally:
        await child.close()


def test_nothing_labelled_is_no_failure(tmp_path: Path) -> None:
    """An empty label map gives no file and a warning for each segment."""
    result = run(write_nifti(np.zeros((4, 5, 6), np.uint8), tmp_path / "l.nii.gz"), tmp_path / "out")
    assert result.files == ()
    assert result.warnings == ("no voxels, so no mesh: lung_left, bones, airways",)
    assert result.measurements["segments"] == {}


def test_a_volume_that_a_mesh_cannot_hold_is_said(tmp_path: Path) -> None:
    """A segment of one voxel has no smooth surface of its size: its error is in the measurements and in a warning."""
    volume = np.zeros((9, 9, 9), np.uint8)
    volume[4, 4, 4] = 1
    volume[1:4, 1:8, 1:8] = 4
    affine = np.diag([0.05, 0.05, 0.05, 1.0])  # so small that decimals of millilitres would leave little of it
    result = run(write_nifti(volume, tmp_path / "l.nii.gz", affine), tmp_path / "out", SEGMENTS[:2], formats=("stl",))
    lung, bones = (result.measurements["segments"][name] for name in ("lung_left", "bones"))
    assert lung["voxel_volume_ml"] == pytest.approx(1.25e-7)
    exact = 100 * (trimesh.load_mesh(tmp_path / "out" / "lung_left.stl").volume / 1.25e-4 - 1)
    assert exact < -3
    assert lung["volume_error_percent"] == pytest.approx(exact, abs=0.01)
    assert abs(bones["volume_error_percent"]) < 3
    (warning,) = result.warnings
    assert warning == f"the mesh's volume is more than 3 % off that of its voxels: lung_left ({exact:+.1f} %)"


def test_muscles_are_shown_and_what_fills_the_body_is_not() -> None:
    """A task of muscles has nothing else to show; the soft tissue of the model threshold would hide the organs."""
    meshes = {name: ColouredMesh(name, (9, 9, 9), 1.0, ball(5)) for name in (
        "soft_tissue", "subcutaneous_fat", "torso_fat", "psoas_muscle_left", "skeletal_muscle", "bones",
    )}  # fmt: skip
    shown = [segment.name for segment in _worth_showing(list(meshes.values()))]
    assert shown == ["psoas_muscle_left", "skeletal_muscle", "bones"]
    assert _worth_showing([meshes["torso_fat"]]) == [meshes["torso_fat"]]


def test_labels_that_no_segment_names_are_left_out_and_said(tmp_path: Path) -> None:
    """They count as background."""
    result = run(write_nifti(labels(), tmp_path / "l.nii.gz"), tmp_path / "out", SEGMENTS[:1])
    assert list(result.measurements["segments"]) == ["lung_left"]
    assert result.warnings == ("the label map has labels that no segment names, left out: 4",)


def test_quality_changes_the_mesh(tmp_path: Path) -> None:
    """High quality is smoother than fast: less area, about the same volume."""
    path = write_nifti(labels(), tmp_path / "l.nii.gz")
    fast, high = (
        run(path, tmp_path / quality, SEGMENTS[:1], quality=quality, reduction_percent=0).measurements["segments"][
            "lung_left"
        ]
        for quality in (Quality.FAST, Quality.HIGH)
    )
    assert high["area_mm2"] < fast["area_mm2"]
    assert high["volume_ml"] == pytest.approx(fast["volume_ml"], rel=0.02)


@pytest.mark.parametrize(
    "segments",
    [
        ({"number": 1, "name": "../up", "rgb": [0, 0, 0]},),
        ({"number": 1, "name": "a", "rgb": [0, 0, 0]}, {"number": 2, "name": "A", "rgb": [0, 0, 0]}),
        ({"number": 1, "name": "a", "rgb": [0, 0, 0]}, {"number": 1, "name": "b", "rgb": [0, 0, 0]}),
        ({"number": 0, "name": "a", "rgb": [0, 0, 0]},),
        ({"number": "one", "name": "a", "rgb": [0, 0, 0]},),
        ({"number": 70000, "name": "a", "rgb": [0, 0, 0]},),
        ({"number": 1, "rgb": [0, 0, 0]},),
        ({"number": 1, "name": "a" * 300, "rgb": [0, 0, 0]},),
        ({"number": 1, "name": "a\n", "rgb": [0, 0, 0]},),
        ({"number": 1, "name": "a"},),
        ({"number": 1, "name": "a", "rgb": [0, 0]},),
        ({"number": 1, "name": "a", "rgb": [300, 0, 0]},),
        ({"number": 1, "name": "a", "rgb": [0, -1, 0]},),
        ("lung_left",),
    ],
    ids=[
        "a path as name", "the same name but for case", "the same number", "the background", "a word as number",
        "a number beyond 16 bits", "no name", "a name of 300 letters", "a name of two lines", "no colour",
        "two parts of a colour", "a colour beyond 255", "a colour below 0", "no object",
    ],
)  # fmt: skip
def test_contradictory_segments_are_refused(segments: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    """One error with its code, one line without what was given, and nothing is written."""
    path = write_nifti(labels(), tmp_path / "l.nii.gz")
    with pytest.raises(UnsupportedSeriesError) as caught:
        run(path, tmp_path / "out", segments)
    assert caught.value.code == "segments-invalid"
    assert len(str(caught.value).splitlines()) == 1
    assert "aaa" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "case", ["empty", "text", "cut off", "claims terabytes", "float", "four axes", "flat affine", "negative"]
)
def test_unusable_label_maps_are_refused(case: str, tmp_path: Path) -> None:
    """Each with a code and a line for people, never a traceback of another kind."""
    path = tmp_path / "l.nii.gz"
    write_nifti(labels(), path)
    if case == "empty":
        path.write_bytes(b"")
    elif case == "text":
        path.write_bytes(gzip.compress(b"not a label map" * 100))
    elif case == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "claims terabytes":
        header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), RAS).header
        header["dim"][1:4] = 32767
        path.write_bytes(header.binaryblock + bytes(52))
    elif case == "float":
        write_nifti(labels().astype(np.float32), path)
    elif case == "four axes":
        nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), RAS).to_filename(path)
    elif case == "flat affine":
        image = nib.Nifti1Image(labels().transpose(2, 1, 0), RAS)
        image.header["srow_z"] = 0
        image.header["qform_code"], image.header["sform_code"] = 0, 1
        path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4) + labels().tobytes()))
    else:
        write_nifti(-labels().astype(np.int16), path)
    with pytest.raises(UnsupportedSeriesError) as caught:
        read_label_map(path)
    expected = (
        "label-map-unreadable" if case in {"empty", "text", "cut off", "claims terabytes"} else "label-map-invalid"
    )
    assert caught.value.code == expected


def test_no_memory_to_inflate_is_no_fault_of_the_label_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zlib tells of memory as it tells of damage; what is sound must climb the ladder and not be given up."""
    path = write_nifti(labels(), tmp_path / "l.nii.gz")

    def inflate(_: bytes) -> bytes:
        raise zlib.error("Error -4 while decompressing data")

    monkeypatch.setattr(gzip, "decompress", inflate)
    with pytest.raises(MemoryError):
        read_label_map(path)


def test_a_label_map_is_told_by_its_content(tmp_path: Path) -> None:
    """Plain or gzip, whatever the file is called: a store may give any name."""
    write_nifti(labels(), tmp_path / "l.nii")
    write_nifti(labels(), tmp_path / "l.nii.gz")
    for name in ("l.nii", "l.nii.gz"):
        path = (tmp_path / name).rename(tmp_path / "object")
        read = read_label_map(path)
        np.testing.assert_array_equal(read.labels, labels())
        np.testing.assert_allclose(read.affine, np.diag([-1, -1, 1, 1]) @ RAS, atol=1e-6)


def test_cutting_to_the_labels_moves_the_origin(tmp_path: Path) -> None:
    """The voxels that are kept stay where they are in the patient, and get the numbers 1, 2, ..."""
    read = read_label_map(write_nifti(labels(), tmp_path / "l.nii.gz"))
    found = survey(read.labels)
    cut = renumber(read, [4], (slice(25, 30), slice(30, 36), slice(4, 10)))
    assert cut.labels.shape == (7, 8, 8)
    assert (cut.labels[1:-1, 1:-1, 1:-1] == 1).all()
    assert cut.labels.sum() == 5 * 6 * 6
    np.testing.assert_allclose(cut.affine @ [0, 0, 0, 1], read.affine @ [4, 30, 25, 1])
    assert found.voxels == {1: int((labels() == 1).sum()), 4: 5 * 6 * 6}
    assert found.at_border == {4}
    assert (labels()[found.box] > 0).sum() == (labels() > 0).sum()
    assert all((np.take(labels()[found.box], end, axis) > 0).any() for axis in range(3) for end in (0, -1))


@pytest.mark.data
def test_a_real_label_map_of_sixty_structures(data: Path, tmp_path: Path) -> None:
    """Every structure of a real CT becomes a closed manifold within the volume, with about its voxels' volume."""
    path = data / "nifti" / "totalseg" / "example_seg_fast_force_split.nii.gz"
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)
    numbers = [int(number) for number in np.unique(voxels) if number]
    segments = tuple({"number": number, "name": f"segment_{number}", "rgb": [number, 200, 90]} for number in numbers)
    result = run(path, tmp_path / "out", segments, formats=("stl",))
    measured = result.measurements["segments"]
    assert len(measured) == len(numbers) == 61
    assert result.warnings == ()
    lps = np.diag([-1, -1, 1, 1]) @ image.affine
    ends = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners = (ends * [*voxels.shape, 1] - [0.5, 0.5, 0.5, 0]) @ lps.T
    for name, each in measured.items():
        assert each["watertight"], name
        low, high = each["bounding_box_lps_mm"]
        assert (np.array(low) >= corners[:, :3].min(axis=0) - 1e-2).all(), name
        assert (np.array(high) <= corners[:, :3].max(axis=0) + 1e-2).all(), name
        if each["voxel_volume_ml"] > 10:
            assert each["volume_ml"] == pytest.approx(each["voxel_volume_ml"], rel=0.12), name
    large = [each for each in measured.values() if each["voxel_volume_ml"] > 50]
    errors = [abs(each["volume_ml"] / each["voxel_volume_ml"] - 1) for each in large]
    assert np.mean(errors) < 0.03
    for number in numbers[::12]:
        assert trimesh.load_mesh(tmp_path / "out" / f"segment_{number}.stl").is_watertight
