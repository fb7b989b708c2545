"""From headers to grey levels: made files of known truth, and real ones with pydicom as the referee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.pixels.processing import apply_voi
from pydicom.sequence import Sequence

from unit.shared.imaging_files import image, only_frame
from voxelmill_shared.imaging import Window, WindowFunction, read_frames
from voxelmill_shared.imaging.windowing import grey_levels

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16


def ramp(folder: Path, stored: Any = RAMP, **elements: Any) -> Any:
    """Grey levels of a ramp with these elements."""
    given = {"RescaleSlope": None, "RescaleIntercept": None, "BitsStored": 12, "HighBit": 11} | elements
    return grey_levels(only_frame(image(stored, **given), folder)).ravel().astype(int)


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
    np.testing.assert_array_equal(grey_levels(only_frame(dataset, tmp_path)).ravel(), plain)


def test_two_entries_of_eight_bits_in_a_word(tmp_path: Path) -> None:
    """A table of 8-bit entries may be written as half as many words (PS3.3 C.7.6.3.1.6)."""
    item = table(np.arange(256), 0, 8)
    item.add_new("LUTData", "US", np.arange(256, dtype=np.uint8).view("<u2").tolist())
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    levels = ramp(tmp_path, stored, BitsStored=8, HighBit=7, VOILUTSequence=Sequence([item]))
    np.testing.assert_array_equal(levels, np.arange(256))


def test_what_is_not_a_number_is_black() -> None:
    """Float pixels hold NaN where nothing was measured; it neither warns nor spoils the percentiles."""
    from unit.shared.test_imaging_windowing import frame

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
        np.testing.assert_array_equal(grey_levels(only_frame(dataset, tmp_path)).ravel(), plain)


def test_a_table_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    """The window beside it is taken, and what is wrong is said; a window that is none leaves the percentiles."""
    short = table(np.arange(100), 0, 16)  # 200 bytes
    short.LUTDescriptor = [4096, 0, 16]
    plain = {"RescaleSlope": None, "RescaleIntercept": None, "WindowCenter": 2048, "WindowWidth": 4096}
    display = only_frame(image(RAMP, VOILUTSequence=Sequence([short]), **plain), tmp_path).display
    assert display.voi == Window(2048, 4096)
    assert display.doubt == "its VOI LUT makes no sense (a look-up table has 200 entries instead of 4096)"
    dataset = image(RAMP, VOILUTSequence=Sequence([Dataset()]))
    dataset.add_new("WindowCenter", "LO", "x")
    dataset.add_new("WindowWidth", "LO", "y")
    display = only_frame(dataset, tmp_path).display
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
    assert only_frame(dataset, tmp_path).display.voi == expected


@pytest.mark.parametrize(("modality", "air"), [("CT", True), ("MR", False)])
def test_only_a_ct_has_air(tmp_path: Path, modality: str, air: bool) -> None:
    """Padding becomes air where air is on the scale."""
    display = only_frame(image(RAMP, Modality=modality, PixelPaddingValue=63536), tmp_path).display
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
    assert np.abs(grey_levels(only_frame(dataset, tmp_path)) - expected).max() <= 0.51


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
