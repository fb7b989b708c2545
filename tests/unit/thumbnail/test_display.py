"""From headers to grey levels and colours: made files of known truth, and real ones with pydicom as the referee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing, convert_color_space, pixel_array
from pydicom.pixels.processing import apply_voi
from pydicom.sequence import Sequence

from unit.shared.imaging_files import image, save
from voxelmill_shared.imaging import Window, WindowFunction, read_frames
from voxelmill_shared.imaging.palette import expand_segments
from voxelmill_shared.work import UnsupportedSeriesError
from voxelmill_thumbnail.picture import picture_of
from voxelmill_thumbnail.windowing import grey_levels

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging import Frame

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16


def only(dataset: Dataset, folder: Path) -> Frame:
    (frame,) = read_frames(save(dataset, folder / "one.dcm"))
    return frame


def ramp(folder: Path, stored: Any = RAMP, **elements: Any) -> Any:
    """Grey levels of a ramp with these elements."""
    given = {"RescaleSlope": None, "RescaleIntercept": None, "BitsStored": 12, "HighBit": 11} | elements
    return grey_levels(only(image(stored, **given), folder)).ravel().astype(int)


def table(entries: Any, first: int, bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) & 0xFFFF, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return item


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),  # said twice, and meant once
        ("MONOCHROME1", "IDENTITY", True),  # a contradiction: the pixels' own description holds
    ],
)
def test_polarity(tmp_path: Path, photometric: str, shape: str | None, inverted: bool) -> None:
    """MONOCHROME1 and Presentation LUT Shape INVERSE mean that low values are bright."""
    levels = ramp(
        tmp_path, PhotometricInterpretation=photometric, PresentationLUTShape=shape, WindowCenter=2048, WindowWidth=4096
    )
    assert (levels[0] > 253, levels[-1] < 2) == (inverted, inverted)
    assert (levels[0] < 2, levels[-1] > 253) == (not inverted, not inverted)


@pytest.mark.parametrize(("sign", "inverted"), [(1, True), (-1, False), (None, False)])
def test_raw_exposures_are_shown_as_film_does(tmp_path: Path, sign: int | None, inverted: bool) -> None:
    """FOR PROCESSING: what lets little of the beam through is bright, whatever window a writer has added."""
    levels = ramp(
        tmp_path,
        PresentationIntentType="FOR PROCESSING",
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=sign,
        WindowCenter=10,
        WindowWidth=5,
    )
    steps = np.diff(levels)
    assert (steps <= 0).all() if inverted else (steps >= 0).all()
    assert len(set(levels)) > 200  # the window would leave two


def test_linear_exposures_are_seen_by_their_logarithm(tmp_path: Path) -> None:
    """Equal factors of exposure are equal steps of grey."""
    factors = np.geomspace(16, 4095, 256).astype(np.uint16).reshape(16, 16)
    raw = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}
    levels = ramp(tmp_path, factors, PixelIntensityRelationshipSign=-1, **raw)
    np.testing.assert_allclose(levels[8:-8], np.linspace(0, 255, 256)[8:-8], atol=5)
    presented = ramp(tmp_path, factors, **(raw | {"PresentationIntentType": "FOR PRESENTATION"}))
    assert abs(presented[128] - 127) > 50


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_voi_table_begins_below_zero_after_a_rescale(tmp_path: Path, vr: str) -> None:
    """Its first input is in HU, and -1000 may be written as 64,536 (PS3.3 C.11.2.1.1)."""
    entries = [0, 0, *range(0, 65536, 32), 65535]
    first = -1000 if vr == "SS" else 65536 - 1000
    levels = ramp(
        tmp_path, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=Sequence([table(entries, first, 16, vr)])
    )
    units = RAMP.ravel().astype(int) - 1024
    expected = np.array(entries)[(units + 1000).clip(0, len(entries) - 1)] / 65535 * 255
    np.testing.assert_allclose(levels, expected, atol=0.51)


def test_a_voi_table_that_begins_high_stays_there(tmp_path: Path) -> None:
    """Without a sign in the values 40,000 is 40,000, also where it is written as a negative number."""
    stored = (np.arange(256, dtype=np.uint16) + 39_900).reshape(16, 16)
    item = table([0, 1000, 2000, 4095], 40_000 - 65_536, 12, "SS")
    levels = ramp(tmp_path, stored, BitsStored=16, HighBit=15, VOILUTSequence=Sequence([item]))
    assert set(levels[:100]) == {0}
    assert levels[100:104].tolist() == [0, 62, 125, 255]
    assert set(levels[104:]) == {255}


@pytest.mark.parametrize(
    ("bits", "top", "white"), [(16, 4095, 255), (8, 4095, 255), (12, 4095, 255), (16, 65535, 255), (12, 2047, 127)]
)
def test_the_entries_of_a_voi_table_tell_their_bits(tmp_path: Path, bits: int, top: int, white: int) -> None:
    """Tables of 12 bits say 16 or 8 in the descriptor, and would be all black or all white."""
    entries = np.linspace(0, top, 4096).astype(int)
    levels = ramp(tmp_path, VOILUTSequence=Sequence([table(entries, 0, bits)]))
    np.testing.assert_allclose(levels, RAMP.ravel() / 4095 * white, atol=1.1)


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_modality_table_of_signed_values_begins_below_zero(tmp_path: Path, vr: str) -> None:
    """Its first input has the sign of the stored values (PS3.3 C.11.1.1)."""
    stored = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    first = -100 if vr == "SS" else 65536 - 100
    item = table(np.arange(201) * 20, first, 16, vr)
    item.ModalityLUTType = "US"
    levels = ramp(
        tmp_path, stored, ModalityLUTSequence=Sequence([item]), WindowCenter=2000.5, WindowWidth=4001, HighBit=11
    )
    expected = (stored.ravel() + 100).clip(0, 200) * 20 / 4000 * 255
    np.testing.assert_allclose(levels, expected, atol=0.6)


def test_overlays_are_not_drawn(tmp_path: Path) -> None:
    """Neither those of group 6000 nor those in the bits above the stored ones."""
    plain = ramp(tmp_path, WindowCenter=2048, WindowWidth=4096)
    dirty = RAMP.copy()
    dirty[::2] |= 0x1000
    dirty[:, ::3] |= 0x8000
    high = {"OverlayRows": 16, "OverlayColumns": 16, "OverlayBitsAllocated": 16, "OverlayBitPosition": 12}
    dataset = image(dirty, RescaleSlope=None, RescaleIntercept=None, BitsStored=12, HighBit=11)
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    for group, elements in ((0x6000, high), (0x6002, high | {"OverlayBitsAllocated": 1, "OverlayBitPosition": 0})):
        for keyword, value in elements.items():
            place = {"OverlayRows": 0x10, "OverlayColumns": 0x11, "OverlayBitsAllocated": 0x100}
            dataset.add_new((group, place.get(keyword, 0x102)), "US", value)
    dataset.add_new((0x6002, 0x3000), "OW", b"\xff" * 32)
    np.testing.assert_array_equal(grey_levels(only(dataset, tmp_path)).ravel(), plain)


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
    colours = np.asarray(picture_of(only(dataset, tmp_path))).reshape(-1, 3)
    grey = colours[:128]
    assert (np.ptp(grey.astype(int), axis=1) == 0).all()
    np.testing.assert_allclose(grey[:, 0], RAMP.ravel()[:128] / 2048 * 255, atol=1)
    assert (colours[128:] == (255, 128, 0)).all()
    dataset.PixelPresentation = "MONOCHROME"
    assert picture_of(only(dataset, tmp_path)).mode == "L"


@pytest.mark.parametrize("name", ["SPRING", "SUMMER", "FALL", "WINTER", "PET", "HOT_IRON"])
def test_well_known_palettes_equal_pydicoms(tmp_path: Path, name: str) -> None:
    """Four of them are segmented with entries, opcodes and lengths of 8 bits (PS3.6 B)."""
    known = pydicom.dcmread(pydicom.data.get_palette_files(f"{name.lower().replace('_', '')}.dcm")[0])
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dataset = image(stored, PhotometricInterpretation="PALETTE COLOR")
    for element in known:
        if "PaletteColorLookupTable" in element.keyword and "UID" not in element.keyword:
            dataset.add(element)
    colours = np.asarray(picture_of(only(dataset, tmp_path)))
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
        only(dataset, tmp_path)


def test_video_range_is_stretched(tmp_path: Path) -> None:
    """YBR_PARTIAL: black is 16 and white 235; the primaries of BT.601 come out as themselves (PS3.3 C.7.6.3.1.2)."""
    ybr = np.array([[(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110)]], np.uint8)
    dataset = image(ybr, PhotometricInterpretation="YBR_PARTIAL_420")
    colours = np.asarray(picture_of(only(dataset, tmp_path))).astype(int)
    expected = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert np.abs(colours[0] - expected).max() <= 3


def test_shared_chrominance_in_video_range(tmp_path: Path) -> None:
    """YBR_PARTIAL_422 as it is stored: two luminances, then the chrominance of both (PS3.3 C.7.6.3.1.2)."""
    cells = np.array([[(81, 81, 90), (240, 145, 145), (54, 34, 235), (16, 128, 128)]], np.uint8)
    dataset = image(np.zeros((1, 6, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_422")
    dataset.PixelData = cells.tobytes()
    colours = np.asarray(picture_of(only(dataset, tmp_path))).astype(int)
    expected = [(255, 0, 0)] * 2 + [(0, 255, 0)] * 2 + [(255, 255, 255), (0, 0, 0)]
    assert np.abs(colours[0] - expected).max() <= 3


def test_two_entries_of_eight_bits_in_a_word(tmp_path: Path) -> None:
    """A table of 8-bit entries may be written as half as many words (PS3.3 C.7.6.3.1.6)."""
    item = table(np.arange(256), 0, 8)
    item.add_new("LUTData", "US", np.arange(256, dtype=np.uint8).view("<u2").tolist())
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    levels = ramp(tmp_path, stored, BitsStored=8, HighBit=7, VOILUTSequence=Sequence([item]))
    np.testing.assert_array_equal(levels, np.arange(256))


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
def test_names_of_jpeg_2000s_transforms_outside_of_it_mean_rgb(tmp_path: Path, photometric: str) -> None:
    """Whoever decompressed the file has undone the transform and left the name."""
    rgb = np.array([[(255, 0, 0), (10, 200, 30)]], np.uint8)
    dataset = image(rgb, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(np.asarray(picture_of(only(dataset, tmp_path))), rgb)


def test_what_is_not_a_number_is_black() -> None:
    """Float pixels hold NaN where nothing was measured; it neither warns nor spoils the percentiles."""
    from unit.thumbnail.test_windowing import frame

    stored = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    stored[0, :3] = np.nan, np.inf, -np.inf
    levels = grey_levels(frame(stored))
    assert levels[0, :3].tolist() == [0, 255, 0]
    assert np.ptp(levels.astype(int)) == 255


def test_tables_in_big_endian_words(tmp_path: Path) -> None:
    """A VOI and a modality table of OW are in the byte order of the file, which the reader leaves as it is."""
    entries = np.arange(4096)[::-1] * 16
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        plain = ramp(tmp_path, **{keyword: Sequence([table(entries, 0, 16)])})
        item = table(entries, 0, 16)
        item.LUTData = entries.astype(">u2").tobytes()
        dataset = image(RAMP, RescaleSlope=None, RescaleIntercept=None, BitsStored=12, HighBit=11)
        setattr(dataset, keyword, Sequence([item]))
        dataset.PixelData = RAMP.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        np.testing.assert_array_equal(grey_levels(only(dataset, tmp_path)).ravel(), plain)


def test_a_table_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    """The window beside it is taken, and what is wrong is said; a window that is none leaves the percentiles."""
    short = table(np.arange(100), 0, 16)  # 200 bytes
    short.LUTDescriptor = [4096, 0, 16]
    plain = {"RescaleSlope": None, "RescaleIntercept": None, "WindowCenter": 2048, "WindowWidth": 4096}
    display = only(image(RAMP, VOILUTSequence=Sequence([short]), **plain), tmp_path).display
    assert display.voi == Window(2048, 4096)
    assert display.doubt == "its VOI LUT makes no sense (a look-up table has 200 entries instead of 4096)"
    dataset = image(RAMP, VOILUTSequence=Sequence([Dataset()]))
    dataset.add_new("WindowCenter", "LO", "x")
    dataset.add_new("WindowWidth", "LO", "y")
    display = only(dataset, tmp_path).display
    assert display.voi is None
    assert display.doubt.startswith("its VOI LUT makes no sense (")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"RescaleSlope": 0.001}, Window(0.5, 0.8, WindowFunction.LINEAR_EXACT)),
        ({"RescaleSlope": 1}, None),  # 1 would be the narrowest, and nobody means a threshold
        ({"RescaleSlope": 0.001, "WindowWidth": 0}, None),
        ({"RescaleSlope": 0.001, "WindowWidth": -1}, None),
        ({"RescaleSlope": 1, "VOILUTFunction": "SIGMOID"}, Window(0.5, 0.8, WindowFunction.SIGMOID)),
    ],
)
def test_narrow_windows(tmp_path: Path, elements: dict[str, Any], expected: Window | None) -> None:
    """LINEAR is not defined below a width of 1 (PS3.3 C.11.2.1.2.1): with fractions it can only mean LINEAR_EXACT."""
    dataset = image(RAMP, **({"WindowCenter": 0.5, "WindowWidth": 0.8, "RescaleIntercept": 0} | elements))
    assert only(dataset, tmp_path).display.voi == expected


@pytest.mark.parametrize(("modality", "air"), [("CT", True), ("MR", False)])
def test_only_a_ct_has_air(tmp_path: Path, modality: str, air: bool) -> None:
    """Padding becomes air where air is on the scale."""
    display = only(image(RAMP, Modality=modality, PixelPaddingValue=63536), tmp_path).display
    assert (display.air is not None) is air
    assert display.padding is not None


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 100, -1000])
@pytest.mark.parametrize("several", [False, True])
def test_voi_tables_equal_pydicoms(tmp_path: Path, bits: int, first: int, several: bool) -> None:
    """Of several tables the first, from any first input, to within the rounding to 8 bits."""
    count = 200 if bits == 8 else 3000
    entries = (np.linspace(0, 1, count) ** 2 * ((1 << bits) - 1)).astype(int)
    items = [table(entries, first, bits, "SS"), table(entries[::-1], first, bits, "SS")][: 2 if several else 1]
    dataset = image(
        RAMP.astype(np.int16),
        VOILUTSequence=Sequence(items),
        BitsStored=13,
        HighBit=12,
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    units = (RAMP.astype(np.int16) - 1024).clip(max=first + count - 1)  # pydicom counts in the type of the entries
    expected = apply_voi(units, dataset, index=0) / ((1 << bits) - 1) * 255
    assert np.abs(grey_levels(only(dataset, tmp_path)) - expected).max() <= 0.51


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
    assert np.abs(np.asarray(picture_of(only(dataset, tmp_path))).astype(int) - expected).max() <= 1


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
    colours = np.asarray(picture_of(only(dataset, tmp_path))).astype(int)
    assert np.abs(colours - expected).max() <= 2


GREYS = [
    "color_mono1_lut/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "color_mono1_lut/RG3_J2KI.dcm",
    "color_mono1_lut/dx_image_mono1.dcm",
    "color_mono1_lut/vlut_04.dcm",
    "ct_head_ge_tilt_irregular/01.dcm",
    "ct_head_phantom_tilt_mixed_localizer/S3010_I10",
    "ct_head_phantom_tilt_mixed_localizer/S1000_I10",
    "nonimage/dcmqi_liver_ct3/01.dcm",
    "transfer_syntaxes/J2K_pixelrep_mismatch.dcm",
    "transfer_syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm",
    "transfer_syntaxes/MR_small_bigendian.dcm",
    "transfer_syntaxes/ct_matrix/CTImage_1.2.840.10008.1.2.5.dcm",
    "transfer_syntaxes/examples_overlay.dcm",
]
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
@pytest.mark.parametrize("name", GREYS)
def test_greys_equal_pydicoms(data: Path, name: str) -> None:
    """Modality transform, VOI table or window, and polarity of real files: within half a level of 255 on average."""
    dataset = pydicom.dcmread(data / name)
    (frame,) = read_frames(data / name)  # pydicom cannot decode them all; decoding has tests of its own
    values = apply_modality_lut(frame.stored, dataset)
    if "VOILUTSequence" in dataset:
        expected, ends = (
            apply_voi(values, dataset),
            np.array([0, (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1]),
        )
    else:
        expected, ends = (apply_windowing(what, dataset) for what in (values, np.array([-1e9, 1e9])))
    expected = (expected - ends[0]) / (ends[1] - ends[0]) * 255
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    levels = grey_levels(frame)
    assert np.abs(levels - expected).mean() < 0.5
    assert levels.std() > 5


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
