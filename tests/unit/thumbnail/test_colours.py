"""From headers to colours: made files of known truth, and real ones with pydicom as the referee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, convert_color_space, pixel_array

from unit.shared.imaging_files import image, only_frame
from voxelmill_shared.imaging import read_frames
from voxelmill_shared.imaging.palette import expand_segments
from voxelmill_shared.work import UnsupportedSeriesError
from voxelmill_thumbnail.picture import picture_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16


def palette(entries: dict[str, Any], first: int, bits: int, count: int, prefix: str = "") -> dict[str, Any]:
    elements: dict[str, Any] = {}
    for colour, data in entries.items():
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        elements[f"{prefix}{colour}PaletteColorLookupTableData"] = data
    return elements


@pytest.mark.parametrize("presentation", ["COLOR", "MIXED"])
def test_a_supplemental_palette_colours_what_lies_above(tmp_path: Path, presentation: str) -> None:
    """Below the palette's first input the window's grey, from there on the palette (PS3.3 C.7.6.19)."""
    entries = {
        "Red": np.full(100, 65535, "<u2").tobytes(),
        "Green": np.full(100, 256 * 128, "<u2").tobytes(),
        "Blue": np.zeros(100, "<u2").tobytes(),
    }
    elements = palette(entries, 2048, 16, 100) | {"WindowCenter": 1024, "WindowWidth": 2048, "RescaleIntercept": 0}
    dataset = image(RAMP, PixelPresentation=presentation, BitsStored=12, HighBit=11, **elements)
    colours = np.asarray(picture_of(only_frame(dataset, tmp_path))).reshape(-1, 3)
    grey = colours[:128]
    assert (np.ptp(grey.astype(int), axis=1) == 0).all()
    np.testing.assert_allclose(grey[:, 0], RAMP.ravel()[:128] / 2048 * 255, atol=1)
    assert (colours[128:] == (255, 128, 0)).all()
    dataset.PixelPresentation = "MONOCHROME"
    assert picture_of(only_frame(dataset, tmp_path)).mode == "L"


@pytest.mark.parametrize("name", ["SPRING", "SUMMER", "FALL", "WINTER", "PET", "HOT_IRON"])
def test_well_known_palettes_equal_pydicoms(tmp_path: Path, name: str) -> None:
    """Four of them are segmented with entries, opcodes and lengths of 8 bits (PS3.6 B)."""
    known = pydicom.dcmread(pydicom.data.get_palette_files(f"{name.lower().replace('_', '')}.dcm")[0])
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dataset = image(stored, PhotometricInterpretation="PALETTE COLOR")
    for element in known:
        if "PaletteColorLookupTable" in element.keyword and "UID" not in element.keyword:
            dataset.add(element)
    colours = np.asarray(picture_of(only_frame(dataset, tmp_path)))
    np.testing.assert_array_equal(colours, apply_color_lut(stored, known))


def test_indirect_segments_are_found_by_their_byte(tmp_path: Path) -> None:
    """Offsets count bytes, also where entries have two, and a copied linear segment goes on from the last value."""
    words = [0, 2, 10, 20, 1, 2, 60, 2, 1, 8, 0]  # 10 20, 40 60, then the second segment again, at byte 8
    assert expand_segments(np.array(words, "<u2").tobytes(), 16) == [10, 20, 40, 60, 60, 60]
    octets = [0, 2, 10, 20, 1, 2, 60, 2, 2, 0, 0, 0, 0, 0]  # 10 20, 40 60, then both segments, and one of padding
    assert expand_segments(bytes(octets), 8) == [10, 20, 40, 60, 10, 20, 40, 60]


@pytest.mark.parametrize(
    "words",
    [
        [0, 2, 10, 20, 2, 1, 8, 0],  # points to itself
        [1, 4, 60],  # a line from nowhere
        [3, 1, 1],  # no such kind
        [0, 1, 5, *[1, 60000, 5] * 9],  # far too long
    ],
)
def test_segments_that_make_no_sense_are_an_error(tmp_path: Path, words: list[int]) -> None:
    """One clear reason, whatever is wrong, and no endless loop."""
    data = np.array(words, "<u2").tobytes()
    elements = palette(dict.fromkeys(("Red", "Green", "Blue"), data), 0, 16, 8, "Segmented")
    dataset = image(np.zeros((4, 4), np.uint8), PhotometricInterpretation="PALETTE COLOR", **elements)
    with pytest.raises(UnsupportedSeriesError, match=r"one\.dcm: its description of how to show it makes no sense"):
        only_frame(dataset, tmp_path)


def test_video_range_is_stretched(tmp_path: Path) -> None:
    """YBR_PARTIAL: black is 16 and white 235; the primaries of BT.601 come out as themselves (PS3.3 C.7.6.3.1.2)."""
    ybr = np.array([[(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110)]], np.uint8)
    dataset = image(ybr, PhotometricInterpretation="YBR_PARTIAL_420")
    colours = np.asarray(picture_of(only_frame(dataset, tmp_path))).astype(int)
    expected = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert np.abs(colours[0] - expected).max() <= 3


def test_shared_chrominance_in_video_range(tmp_path: Path) -> None:
    """YBR_PARTIAL_422 as it is stored: two luminances, then the chrominance of both (PS3.3 C.7.6.3.1.2)."""
    cells = np.array([[(81, 81, 90), (240, 145, 145), (54, 34, 235), (16, 128, 128)]], np.uint8)
    dataset = image(np.zeros((1, 6, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_422")
    dataset.PixelData = cells.tobytes()
    colours = np.asarray(picture_of(only_frame(dataset, tmp_path))).astype(int)
    expected = [(255, 0, 0)] * 2 + [(0, 255, 0)] * 2 + [(255, 255, 255), (0, 0, 0)]
    assert np.abs(colours[0] - expected).max() <= 3


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
def test_names_of_jpeg_2000s_transforms_outside_of_it_mean_rgb(tmp_path: Path, photometric: str) -> None:
    """Whoever decompressed the file has undone the transform and left the name."""
    rgb = np.array([[(255, 0, 0), (10, 200, 30)]], np.uint8)
    dataset = image(rgb, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(np.asarray(picture_of(only_frame(dataset, tmp_path))), rgb)


@pytest.mark.parametrize(("bits", "first"), [(16, 0), (16, 50), (8, 0), (8, 50)])
def test_palettes_equal_pydicoms(tmp_path: Path, bits: int, first: int) -> None:
    """Entries of both widths, also where the first stored value that is mapped is not 0; to within a level."""
    step = np.arange(200) / 199
    shades = {"Red": step, "Green": step**2, "Blue": 1 - step}
    top = (1 << bits) - 1
    entries = {name: (shade * top).astype("u1" if bits == 8 else "<u2").tobytes() for name, shade in shades.items()}
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dataset = image(stored, PhotometricInterpretation="PALETTE COLOR", **palette(entries, first, bits, 200))
    expected = apply_color_lut(stored, dataset) >> (bits - 8)
    assert np.abs(np.asarray(picture_of(only_frame(dataset, tmp_path))).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("shift", [0, 8])
def test_colour_spaces_equal_pydicoms(tmp_path: Path, photometric: str, planar: int, shift: int) -> None:
    """Colours by pixel and by plane, of 8 and of 16 bits, to within two levels (pydicom and libjpeg both round)."""
    rgb = np.random.default_rng(8).integers(0, 256, (16, 20, 3), np.uint8)
    cells = rgb if photometric == "RGB" else convert_color_space(rgb, "RGB", "YBR_FULL")
    expected = cells if photometric == "RGB" else convert_color_space(cells, "YBR_FULL", "RGB")
    stored = cells.astype(np.uint16) << shift if shift else cells
    dataset = image(stored, PhotometricInterpretation=photometric, PlanarConfiguration=planar)
    if planar:
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(stored, -1, 0)).tobytes()
    colours = np.asarray(picture_of(only_frame(dataset, tmp_path))).astype(int)
    assert np.abs(colours - expected).max() <= 2


COLOURS = [
    "color_mono1_lut/OBXXXX1A_rle_2frame.dcm",
    "color_mono1_lut/gdcm-US-ALOKA-16.dcm",
    "transfer_syntaxes/SC_rgb_jpeg_dcmd.dcm",
    "transfer_syntaxes/SC_ybr_full_422_uncompressed.dcm",
    "transfer_syntaxes/TestPattern_JPEG-Baseline_YBR422.dcm",
    "transfer_syntaxes/TestPattern_Palette_16.dcm",
    "transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm",
    "transfer_syntaxes/examples_palette.dcm",
    "transfer_syntaxes/examples_rgb_color.dcm",
    "transfer_syntaxes/examples_ybr_color.dcm",
    "nonimage/sm_image_jpegls.dcm",
]


@pytest.mark.data
@pytest.mark.parametrize("name", COLOURS)
def test_colours_equal_pydicoms(data: Path, name: str) -> None:
    """Palettes and YBR of real files: within one level and a half of 255 on average (chroma is rounded twice)."""
    dataset = pydicom.dcmread(data / name)
    expected = pixel_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset)
        expected = expected >> 8 if expected.dtype.itemsize > 1 and expected.max() > 255 else expected
    frame = read_frames(data / name, [0])[0]
    colours = np.asarray(picture_of(frame)).astype(int)
    assert colours.shape == expected.shape
    assert np.abs(colours - expected).mean() < 1.5
