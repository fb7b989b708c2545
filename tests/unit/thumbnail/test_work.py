"""The stage's work from files to pictures: which files come out, and what happens to what cannot be drawn."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from unit.shared.imaging_files import along_z, enhanced, image, numbered, save, write_series
from voxelmill_shared.child import Child, Limits
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.work import UnsupportedSeriesError, WorkResult
from voxelmill_thumbnail.picture import fit, square_pixels
from voxelmill_thumbnail.task import ThumbnailTask
from voxelmill_thumbnail.work import make_thumbnails

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

PLANES = ("axial", "coronal", "sagittal", "mip", "preview")
PRESETS = ("axial-lung", "axial-bone", "axial-soft-tissue", "axial-brain")
"""What a CT gets besides, if its header names no part of the body."""


def draw(paths: list[Path], output: Path, kind: ObjectKind = ObjectKind.DICOM) -> tuple[WorkResult, list[str]]:
    steps: list[str] = []
    result = make_thumbnails(ThumbnailTask(tuple(paths), kind, "", output), steps.append)
    for file in result.files:
        assert file.media_type == "image/webp"
        assert file.name == f"thumbnails/{file.path.name}"
        with Image.open(file.path) as opened:
            assert opened.format == "WEBP"
            opened.load()
    return result, steps


def opened(output: Path, name: str) -> Any:
    with Image.open(output / f"{name}.webp") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def names(result: WorkResult) -> set[str]:
    return {file.name.removeprefix("thumbnails/").removesuffix(".webp") for file in result.files}


def test_a_series_gets_all_its_pictures(tmp_path: Path) -> None:
    """Two sizes per instance in the order given, four planes and a preview, with the steps timed."""
    stored = numbered(5, 80, 100)
    result, steps = draw(write_series(tmp_path, stored, along_z(5)), tmp_path / "out")
    instances = {f"instance-{n}-{size}" for n in range(1, 6) for size in (64, 256)}
    assert names(result) == instances | {*PLANES, *PRESETS}
    assert steps == ["headers", "pictures", "planes"]
    assert set(result.seconds) == set(steps)
    assert result.measurements == {
        "instances": 5,
        "drawn": 5,
        "planes": True,
        "window": {"source": "percentiles"},
    }
    assert result.warnings == ()
    assert opened(tmp_path / "out", "instance-1-64").shape == (51, 64, 3)
    assert opened(tmp_path / "out", "instance-1-256").shape == (80, 100, 3)  # never made larger


def test_pictures_follow_the_order_given(tmp_path: Path) -> None:
    """Instance n is the n-th file, whatever its position in space."""
    dark, bright = np.zeros((32, 32), np.int16), np.full((32, 32), 100, np.int16)
    paths = write_series(tmp_path, np.stack([bright, dark]), along_z(2), WindowCenter=-974, WindowWidth=100)
    draw(paths[::-1], tmp_path / "out")
    assert opened(tmp_path / "out", "instance-1-64").mean() < 5
    assert opened(tmp_path / "out", "instance-2-64").mean() > 250


def test_one_undecodable_instance_does_not_stop_the_others(tmp_path: Path) -> None:
    """The others are drawn, the warning names the instance by its number, and there are no planes."""
    paths = write_series(tmp_path, numbered(4, 16, 16), along_z(4))
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    result, _ = draw(paths, tmp_path / "out")
    assert names(result) == {f"instance-{n}-{size}" for n in (1, 2, 4) for size in (64, 256)} | {"preview"}
    assert result.measurements["drawn"] == 3
    assert result.warnings[0].startswith("instance 3: ")
    assert "512 bytes" in result.warnings[0]
    assert result.warnings[1] == "no planes: not every instance can be read"


def test_a_codestream_that_fails_late_is_a_warning_too(tmp_path: Path) -> None:
    """A header that is sound and pixels that are not."""
    paths = write_series(tmp_path, numbered(3, 16, 16), along_z(3))
    dataset = image(numbered(4, 16, 16)[3], ImagePositionPatient=list(along_z(4)[3]))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 nothing"])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    result, _ = draw([*paths, save(dataset, tmp_path / "late.dcm")], tmp_path / "out")
    assert result.measurements["drawn"] == 3
    assert result.warnings[0].startswith("instance 4: late.dcm: the pixels of frame 1 cannot be decoded")
    assert result.warnings[1] == "no planes: not every slice of the volume can be decoded"


def jpeg_ls(dataset: Any, frames: list[bytes]) -> Any:
    """Give a data set these codestreams as its pixels."""
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return dataset


def test_a_broken_scout_does_not_cost_the_planes(tmp_path: Path) -> None:
    """An instance that cannot be decoded and is no slice of the volume is a warning, and the planes are drawn."""
    paths = write_series(tmp_path, numbered(4, 16, 16), along_z(4))
    scout = image(numbered(1, 16, 16)[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    paths.append(save(jpeg_ls(scout, [b"\xff\xd8 nothing"]), tmp_path / "scout.dcm"))
    result, _ = draw(paths, tmp_path / "out")
    assert result.measurements["planes"] is True
    assert set(PLANES) <= names(result)
    assert result.warnings[0].startswith("instance 5: scout.dcm: the pixels of frame 1 cannot be decoded")


def test_a_broken_frame_of_a_volume_costs_the_planes_and_not_the_picture(tmp_path: Path) -> None:
    """The middle frame of an Enhanced CT is drawn though the last frame cannot be decoded."""
    import imagecodecs

    stored = numbered(5, 16, 16)
    dataset = enhanced(stored, along_z(5), range(5))
    dataset.PixelRepresentation = 0
    frames = [imagecodecs.jpegls_encode(frame.astype(np.uint16)) for frame in stored]
    path = save(jpeg_ls(dataset, [*frames[:4], b"\xff\xd8 nothing"]), tmp_path / "enhanced.dcm")
    result, _ = draw([path], tmp_path / "out")
    assert names(result) == {"instance-1-64", "instance-1-256", "preview"}
    assert result.warnings[0].startswith("instance 1: no sheet of frames: enhanced.dcm: the pixels of frame 5 cannot")
    assert result.warnings[1] == "no planes: not every slice of the volume can be decoded"


def test_a_window_that_makes_no_sense_is_one_warning(tmp_path: Path) -> None:
    """The pictures are made with percentiles, and the receipt says once which instances it is about."""
    paths = write_series(tmp_path, numbered(30, 16, 16), along_z(30))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("WindowCenter", "LO", "broad")
        dataset.add_new("WindowWidth", "LO", "wide")
        dataset.save_as(path)
    result, _ = draw(paths, tmp_path / "out")
    assert result.measurements["planes"] is True
    (warning,) = result.warnings
    assert warning.startswith("instances 1, 2, 3, ")
    assert warning.endswith("20 and 10 more: its window makes no sense (could not convert string to float: …)")


def test_padding_spoils_no_plane(tmp_path: Path) -> None:
    """An MR without a window, most of whose pixels are padding far below: the planes are as rich as the instances."""
    stored = np.tile(np.linspace(100, 200, 40, dtype=np.int16), (5, 40, 1))
    stored[:, :25] = -32768
    elements = {"Modality": "MR", "RescaleIntercept": 0, "PixelPaddingValue": -32768}
    draw(write_series(tmp_path, stored, along_z(5), **elements), tmp_path / "out")
    assert np.ptp(opened(tmp_path / "out", "axial")[28:38, 2:-2]) > 200


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 100, "WindowWidth": 150}])
def test_the_receipt_says_where_the_greys_come_from(tmp_path: Path, window: dict[str, int]) -> None:
    """Images of 8 bits that bring nothing are shown in their full range, which is no percentile."""
    path = save(image(np.zeros((8, 8), np.uint8), RescaleSlope=None, RescaleIntercept=None, **window), tmp_path / "8")
    result, _ = draw([path], tmp_path / "out")
    assert result.measurements["window"]["source"] == ("window" if window else "full range")


def test_a_video_is_refused_by_name(tmp_path: Path) -> None:
    """It is whole, so the reason is the transfer syntax and no truncation."""
    dataset = image(np.zeros((8, 8, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_420", NumberOfFrames=300)
    jpeg_ls(dataset, [bytes(500)]).file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    with pytest.raises(UnsupportedSeriesError, match=r"it is a video \(MPEG-4") as error:
        draw([save(dataset, tmp_path / "video.dcm")], tmp_path / "out")
    assert error.value.code == "undecodable-pixels"


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    """If no instance can be drawn the first reason is raised."""
    path = save(image(np.zeros((4, 4), np.int16), Rows=400), tmp_path / "cut.dcm")
    with pytest.raises(UnsupportedSeriesError) as error:
        draw([path], tmp_path / "out")
    assert error.value.code == "truncated-pixels"


def test_a_series_that_is_no_volume_has_a_preview_and_a_reason(tmp_path: Path) -> None:
    """Missing slices: all pictures but the planes, and the reason."""
    positions = [along_z(6)[k] for k in (0, 1, 3, 4)]
    result, _ = draw(write_series(tmp_path, numbered(4, 16, 16), positions), tmp_path / "out")
    assert names(result) == {f"instance-{n}-{size}" for n in range(1, 5) for size in (64, 256)} | {"preview"}
    assert result.warnings == (
        "no planes: 1 slice is missing between 7.00 and 11.00 mm along the normal (spacing 2.00 mm)",
    )


def test_a_multi_frame_instance_is_shown_by_its_middle_frame(tmp_path: Path) -> None:
    """One picture per instance, the middle frame as stored; the volume takes all frames."""
    stored = np.zeros((5, 16, 16), np.int16)
    stored[4] = 1000
    path = save(enhanced(stored, along_z(5), [0, 1, 4, 2, 3]), tmp_path / "enhanced.dcm")
    result, _ = draw([path], tmp_path / "out")
    assert names(result) == {"instance-1-64", "instance-1-256", "instance-1-frames", *PLANES, *PRESETS}
    assert opened(tmp_path / "out", "coronal")[0].mean() > 200  # the bright slice is the topmost
    assert opened(tmp_path / "out", "coronal")[-1].mean() < 50


def test_a_copy_of_an_instance_is_drawn_too(tmp_path: Path) -> None:
    """A slice that is there twice has two pictures and is once in the volume."""
    paths = write_series(tmp_path, numbered(3, 16, 16), along_z(3))
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[0].read_bytes())
    result, _ = draw([*paths, copy], tmp_path / "out")
    assert "instance-4-64" in names(result)
    assert result.measurements["planes"] is True


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    """A pixel twice as high as wide."""
    path = save(image(np.zeros((40, 40), np.int16), PixelSpacing=[2, 1]), tmp_path / "tall.dcm")
    draw([path], tmp_path / "out")
    assert opened(tmp_path / "out", "preview").shape[:2] == (80, 40)
    assert square_pixels(Image.new("L", (40, 40)), 0.5).size == (80, 40)
    assert square_pixels(Image.new("L", (40, 40)), 1e9).size == (40, 40)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((512, 512), 256, (256, 256)),
        ((513, 400), 256, (256, 200)),
        ((10, 4000), 64, (1, 64)),
        ((20, 10), 64, (20, 10)),
    ],
)
def test_fit_keeps_proportions(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    """The longer side becomes the size asked for, small pictures stay."""
    assert fit(Image.new("L", size), longest).size == expected


@pytest.mark.data
def test_real_tilted_head(data: Path, tmp_path: Path) -> None:
    """Folder of three series: the tilted axials get planes, the scout and the colour capture a preview."""
    folder = data / "ct_head_phantom_tilt_mixed_localizer"
    series: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        series.setdefault(str(header.SeriesInstanceUID), []).append(path)
    for n, paths in enumerate(series.values()):
        result, _ = draw(paths, tmp_path / str(n))
        assert result.measurements["drawn"] == len(paths)
        assert result.measurements["planes"] is (len(paths) == 58)


@pytest.mark.data
def test_a_nifti_file_is_one_instance(data: Path, tmp_path: Path) -> None:
    """Its picture is the middle axial plane."""
    result, steps = draw([data / "nifti/totalseg/example_ct.nii.gz"], tmp_path, ObjectKind.NIFTI)
    assert names(result) == {"instance-1-64", "instance-1-256", *PLANES, *PRESETS}
    assert steps == ["decode", "planes"]
    bright = opened(tmp_path, "coronal").sum(axis=2)
    assert bright.shape == (112, 122)


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "grey"),
    [
        ("color_mono1_lut/OT-PAL-8-face.dcm", False),
        ("color_mono1_lut/dx_image_mono1.dcm", True),
        ("color_mono1_lut/vlut_04.dcm", True),
        ("transfer_syntaxes/GDCMJ2K_TextGBR.dcm", False),
        ("transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm", False),
        ("transfer_syntaxes/examples_ybr_color.dcm", False),
    ],
)
def test_real_colours_and_greys(data: Path, tmp_path: Path, path: str, grey: bool) -> None:
    """Grey images give grey pictures, colour images colours, none of them empty."""
    draw([data / path], tmp_path)
    picture = opened(tmp_path, "preview")
    assert picture.std() > 5
    assert bool(np.ptp(picture, axis=2).max() < 6) is grey


@pytest.mark.data
def test_colours_are_not_swapped(data: Path, tmp_path: Path) -> None:
    """A picture of the words red, green and blue in their colours: from top to bottom."""
    draw([data / "transfer_syntaxes/GDCMJ2K_TextGBR.dcm"], tmp_path)
    picture = opened(tmp_path, "preview")
    for band, (top, bottom) in enumerate(((30, 120), (140, 220), (230, 320))):
        part = picture[top:bottom].reshape(-1, 3)
        coloured = part[np.ptp(part, axis=1) > 150]
        assert coloured.mean(axis=0).argmax() == band


async def test_the_work_runs_in_a_child(tmp_path: Path) -> None:
    """Task and result cross the pipe; the error of a hopeless series crosses it with its code."""
    child = Child("voxelmill_thumbnail.work:make_thumbnails", Limits(4 << 30, 60))
    try:
        paths = write_series(tmp_path, numbered(3, 16, 16), along_z(3))
        task = ThumbnailTask(tuple(paths), ObjectKind.DICOM, "CT", tmp_path / "out")
        steps: list[str] = []
        result = await child.call(task, steps.append)
        assert len(result.files) == 15
        assert steps == ["headers", "pictures", "planes"]
        broken = tmp_path / "broken.dcm"
        broken.write_bytes(b"nothing")
        with pytest.raises(UnsupportedSeriesError) as error:
            await child.call(ThumbnailTask((broken,), ObjectKind.DICOM, "CT", tmp_path / "none"))
        assert error.value.code == "not-an-image"
    finally:
        await child.close()
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301 - made here
