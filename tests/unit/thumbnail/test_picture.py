"""Pictures made small, sheets of frames, and the windows for CT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from unit.shared.imaging_files import along_z, enhanced, image, numbered, save, write_series
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging import open_image
from voxelmill_shared.imaging.frames import body_part_of
from voxelmill_thumbnail.picture import fit, longest_written, square_pixels, write_picture
from voxelmill_thumbnail.presets import CT_PRESETS, presets_for
from voxelmill_thumbnail.sheet import frames_to_show
from voxelmill_thumbnail.shrinking import halve
from voxelmill_thumbnail.task import ThumbnailTask
from voxelmill_thumbnail.work import make_thumbnails

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.work import WorkResult


def draw(paths: list[Path], output: Path) -> WorkResult:
    return make_thumbnails(ThumbnailTask(tuple(paths), ObjectKind.DICOM, "", output), lambda _: None)


def levels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")).astype(int)


def test_halving_is_the_filter_that_it_says() -> None:
    """Equal to the same filter in floating point, with the edges repeated, but for rounding."""
    stored = np.random.default_rng(5).integers(0, 256, (38, 62), np.uint8)
    taps = np.array([-1, 2, 7, 7, 2, -1]) / 16
    padded = np.pad(stored.astype(float), 2, mode="edge")
    down = sum(tap * padded[n : n + 37 : 2][:19] for n, tap in enumerate(taps))
    # The edge columns are repeated after the first pass, which is the same.
    both = sum(tap * down[:, n : n + 61 : 2][:, :31] for n, tap in enumerate(taps))
    halved = np.asarray(halve(Image.fromarray(stored))).astype(float)
    inner = np.s_[1:-1, 1:-1]
    assert np.abs(halved - both.clip(0, 255))[inner].max() <= 1
    assert halved.shape == (19, 31)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_halving_keeps_an_even_ground(level: int) -> None:
    """Also at the edges, and at the ends of the range."""
    assert set(np.asarray(halve(Image.new("L", (12, 8), level))).ravel().tolist()) == {level}


def test_halving_keeps_black_and_white_apart() -> None:
    """Sharp edges overshoot, which must not wrap around."""
    stored = np.zeros((40, 40), np.uint8)
    stored[:, 21:] = 255
    halved = np.asarray(halve(Image.fromarray(stored)))
    assert (halved[:, :9] == 0).all()
    assert (halved[:, 12:] == 255).all()


@pytest.mark.parametrize("size", [(512, 512), (1024, 512), (2048, 1024), (512, 510), (700, 512), (511, 512)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_pictures_are_near_to_lanczos(size: tuple[int, int], mode: str) -> None:
    """Whatever the size, the quick way and Pillow's careful one give nearly the same picture in the same place."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    waves = 127 + 60 * np.sin(columns * 40 / size[0]) + 60 * np.cos(rows * 33 / size[1])
    picture = Image.fromarray(waves.astype(np.uint8)).convert(mode)
    small = fit(picture, 256)
    careful = picture.resize(small.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(careful)).max() <= 3


@pytest.mark.parametrize("frames", [1, 2, 24, 25, 26, 64, 1000])
def test_frames_of_a_sheet_are_spread_evenly(frames: int) -> None:
    """All of up to 25; else 25 with the first and the last, in order and as far apart as each other."""
    shown = frames_to_show(frames)
    assert len(shown) == min(frames, 25)
    assert (shown[0], shown[-1]) == (0, frames - 1)
    steps = np.diff(shown)
    if frames > 1:
        assert steps.min() >= 1
        assert np.ptp(steps) <= 1


def test_a_sheet_shows_the_frames_in_rows(tmp_path: Path) -> None:
    """Nine frames, each brighter than the one before: three rows of three, comparable in brightness."""
    stored = np.repeat(np.arange(9, dtype=np.int16)[:, None, None] * 100, 64 * 64, axis=1).reshape(9, 64, 64)
    dataset = enhanced(stored, along_z(9), range(9))
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    result = draw([save(dataset, tmp_path / "nine.dcm")], tmp_path / "out")
    assert "thumbnails/instance-1-frames.webp" in {file.name for file in result.files}
    sheet = levels(tmp_path / "out" / "instance-1-frames.webp")
    assert sheet.shape == (3 * 64 + 4, 3 * 64 + 4)
    means = [sheet[y + 30 : y + 60, x + 30 : x + 60].mean() for y in (0, 66, 132) for x in (0, 66, 132)]
    assert np.diff(means).min() > 20


def test_a_frame_that_cannot_be_decoded_costs_the_sheet_and_not_the_picture(tmp_path: Path) -> None:
    """The middle frame is drawn, and a warning says why there is no sheet."""
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLSLossless

    good = imagecodecs.jpegls_encode(np.arange(256, dtype=np.uint8).reshape(16, 16))
    dataset = image(
        np.zeros((16, 16), np.uint8), NumberOfFrames=3, ImagePositionPatient=None, ImageOrientationPatient=None
    )
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = encapsulate([good, good, b"\xff\xd8 nothing"])
    dataset["PixelData"].is_undefined_length = True
    result = draw([save(dataset, tmp_path / "broken.dcm")], tmp_path / "out")
    assert "thumbnails/instance-1-256.webp" in {file.name for file in result.files}
    assert "thumbnails/instance-1-frames.webp" not in {file.name for file in result.files}
    assert result.warnings[0].startswith("instance 1: no sheet of frames: broken.dcm: the pixels of frame 3")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("CHEST", ("lung", "bone", "soft-tissue")),
        ("HEAD", ("bone", "soft-tissue", "brain")),
        ("LSPINE", ("bone", "soft-tissue")),
        ("CHESTABDPELVIS", ("lung", "bone", "soft-tissue")),
        ("HEADNECKCHEST", ("lung", "bone", "soft-tissue", "brain")),
        ("Thoracic", ("lung", "bone", "soft-tissue")),
        ("", ("lung", "bone", "soft-tissue", "brain")),
        ("PARTIALBODY", ("lung", "bone", "soft-tissue", "brain")),
        ("HEART", ("lung", "bone", "soft-tissue")),
        ("FOREARM", ("bone", "soft-tissue")),
        ("Inner ear", ("bone", "soft-tissue", "brain")),
    ],
)
def test_presets_suit_the_part_of_the_body(part: str, names: tuple[str, ...]) -> None:
    """What is named decides, several parts add up, and what says nothing gets all."""
    assert presets_for(part) == names


def test_presets_are_drawn_from_hounsfield_units(tmp_path: Path) -> None:
    """Strips of known HU have the levels that the windows give them, in each preset."""
    units = np.array([-1000, -600, 0, 40, 60, 400, 1000], np.int16)
    stored = np.repeat(units + 1024, 20)[None, None, :].repeat(3, 0).repeat(140, 1)
    draw(write_series(tmp_path, np.ascontiguousarray(stored), along_z(3)), tmp_path / "out")
    for name, window in CT_PRESETS.items():
        picture = levels(tmp_path / "out" / f"axial-{name}.webp")
        strips = [picture[90:120, 20 * n + 8 : 20 * n + 12].mean() for n in range(7)]
        expected = ((units - (window.centre - 0.5)) / (window.width - 1) + 0.5).clip(0, 1) * 255
        np.testing.assert_allclose(strips, expected, atol=6)


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_other_modalities_have_no_presets(tmp_path: Path, modality: str) -> None:
    """Their values are not HU."""
    result = draw(write_series(tmp_path, numbered(3, 16, 16), along_z(3), Modality=modality), tmp_path / "out")
    assert not [file.name for file in result.files if file.name.startswith("thumbnails/axial-")]


def test_the_body_part_is_named_by_a_code_too(tmp_path: Path) -> None:
    """Enhanced CT says it in the functional groups, some others in the data set; else there is none."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    code, anatomy = Dataset(), Dataset()
    code.CodeMeaning = "Chest"
    anatomy.AnatomicRegionSequence = Sequence([code])
    dataset = enhanced(numbered(2, 8, 8), along_z(2), (0, 1))
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])
    assert body_part_of(open_image(save(dataset, tmp_path / "groups.dcm"))) == "Chest"
    dataset = image(numbered(1, 8, 8)[0], AnatomicRegionSequence=Sequence([code]))
    assert body_part_of(open_image(save(dataset, tmp_path / "set.dcm"))) == "Chest"
    dataset.BodyPartExamined = "HEAD"
    assert body_part_of(open_image(save(dataset, tmp_path / "named.dcm"))) == "HEAD"
    assert body_part_of(open_image(save(image(numbered(1, 8, 8)[0]), tmp_path / "none.dcm"))) == ""


@pytest.mark.parametrize(("species", "lettered"), [(None, True), ("BIPED", True), ("QUADRUPED", False)])
def test_animals_on_four_legs_get_no_letters(tmp_path: Path, species: str | None, lettered: bool) -> None:
    """Their directions have other names; the pictures are the same but for the letters."""
    stored = np.full((3, 80, 80), 1024, np.int16)
    paths = write_series(
        tmp_path, stored, along_z(3), WindowCenter=0, WindowWidth=2000, AnatomicalOrientationType=species
    )
    draw(paths, tmp_path / "out")
    assert bool(np.ptp(levels(tmp_path / "out" / "axial.webp")) > 100) is lettered
    assert np.ptp(levels(tmp_path / "out" / "preview.webp")) < 4


def test_what_webp_has_no_room_for_is_made_smaller(tmp_path: Path) -> None:
    """16 million pixels of noise overflow its first partition; nothing smaller does, so this takes its time."""
    noise = np.random.default_rng(3).integers(0, 256, (4096, 4096), np.uint8)
    written = levels(write_picture(Image.fromarray(noise), tmp_path / "noise.webp"))
    assert written.shape == (3072, 3072)
    assert written.std() > 20


@pytest.mark.parametrize(
    ("size", "longest"),
    [((16_384, 16_384), 8192), ((65_535, 100), 16_383), ((100, 100), 8192), ((4096, 16_384), 16_383)],
)
def test_the_largest_picture_that_is_written(size: tuple[int, int], longest: int) -> None:
    """At most 8,192 squared pixels, and on no side more than WebP can hold."""
    assert longest_written(*size) == longest


def test_stretching_is_bounded() -> None:
    """A long picture of very flat pixels keeps its proportions and not its rows."""
    stretched = square_pixels(Image.new("L", (100, 8_000)), 1 / 90)
    assert stretched.width * stretched.height <= 1.001 * (1 << 26)
    assert stretched.width / stretched.height == pytest.approx(9_000 / 8_000, rel=1e-3)
