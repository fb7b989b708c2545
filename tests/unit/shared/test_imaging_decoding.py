"""Frames of every transfer syntax: equal to the same image uncompressed, or to pydicom where pydicom can read it."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from unit.shared.imaging_files import image, save
from voxelmill_shared.imaging.codestream import read_codestream
from voxelmill_shared.imaging.decoding import DECODED, _plugins_for, decode
from voxelmill_shared.imaging.frames import Window, WindowFunction, read_frames
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform, Padding, narrow
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

LOSSLESS = ("1.2", "1.2.1", "1.2.1.99", "1.2.2", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")
LOSSY = {"1.2.4.81": 1, "1.2.4.91": 5, "1.2.4.50": 18, "1.2.4.51": 10, "1.2.4.53": 10, "1.2.4.55": 10}
"""How far each lossy copy may be from the original, in HU: the JPEG ones keep 8 and 12 bits of 16."""


def hounsfield(path: Path) -> Any:
    (frame,) = read_frames(path)
    return frame.display.modality.apply(frame.stored).astype(float)


@pytest.fixture(scope="module")
def original(data: Path) -> Any:
    return hounsfield(data / "transfer_syntaxes/ct_matrix/CTImage_1.2.840.10008.1.2.1.dcm")


@pytest.mark.data
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_same_pixels(data: Path, original: Any, syntax: str) -> None:
    """One slice in nine lossless syntaxes: every pixel the same."""
    decoded = hounsfield(data / f"transfer_syntaxes/ct_matrix/CTImage_1.2.840.10008.{syntax}.dcm")
    np.testing.assert_array_equal(decoded, original)


@pytest.mark.data
@pytest.mark.parametrize("syntax", LOSSY)
def test_lossy_syntaxes_are_close(data: Path, original: Any, syntax: str) -> None:
    """One slice in six lossy syntaxes, two of them retired: within what their bits allow."""
    decoded = hounsfield(data / f"transfer_syntaxes/ct_matrix/CTImage_1.2.840.10008.{syntax}.dcm")
    inside = original > -2000  # the JPEG copies have lost the padding
    assert np.abs(decoded - original)[inside].mean() < LOSSY[syntax]
    assert np.corrcoef(decoded[inside], original[inside])[0, 1] > 0.995


@pytest.mark.data
@pytest.mark.parametrize(
    "path",
    [
        "transfer_syntaxes/J2K_pixelrep_mismatch.dcm",
        "transfer_syntaxes/JLSL_16_15_1_1F.dcm",
        "transfer_syntaxes/MR_small_bigendian.dcm",
        "transfer_syntaxes/emri_small_RLE.dcm",
        "transfer_syntaxes/emri_small_big_endian.dcm",
        "transfer_syntaxes/emri_small_jpeg_ls_lossless.dcm",
        "transfer_syntaxes/image_dfl.dcm",
        "transfer_syntaxes/liver.dcm",
        "transfer_syntaxes/parametric_map_float.dcm",
        "transfer_syntaxes/TestPattern_JPEG-LS-NearLossless.dcm",
        "transfer_syntaxes/SC_rgb_jpeg_dcmd.dcm",
        "transfer_syntaxes/SC_ybr_full_422_uncompressed.dcm",
        "transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm",
        "transfer_syntaxes/examples_palette.dcm",
        "transfer_syntaxes/examples_overlay.dcm",
        "color_mono1_lut/OBXXXX1A_rle_2frame.dcm",
        "color_mono1_lut/gdcm-US-ALOKA-16.dcm",
        "color_mono1_lut/RG3_J2KI.dcm",
        "color_mono1_lut/mlut_18.dcm",
        "broken/SC_rgb_small_odd.dcm",
        "broken/MR_small_padded.dcm",
        "broken/explicit_VR-UN.dcm",
        "broken/no-pixel-spacing.dcm",
        "charsets/chrArab.dcm",
        "nonimage/seg_image_ct_binary_overlap.dcm",
    ],
)
def test_stored_values_equal_pydicoms(data: Path, path: str) -> None:
    """Stored values of every kind (signed, 15 of 16 bits, 1 bit, float, colour, big-endian) are pydicom's."""
    try:
        expected = pixel_array(pydicom.dcmread(data / path), raw=True)
    except RuntimeError:
        pytest.skip("pydicom has no decoder for this without its plugins")
    frames = read_frames(data / path)
    decoded = np.stack([frame.stored for frame in frames]) if len(frames) > 1 else frames[0].stored
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "frames", "photometric"),
    [
        ("transfer_syntaxes/examples_ybr_color.dcm", 30, "RGB"),
        ("transfer_syntaxes/TestPattern_JPEG-Baseline_YBR422.dcm", 1, "RGB"),
        ("transfer_syntaxes/GDCMJ2K_TextGBR.dcm", 1, "RGB"),
        ("transfer_syntaxes/HTJ2KLossless_08_RGB.dcm", 1, "RGB"),
        ("transfer_syntaxes/HTJ2K_08_RGB.dcm", 1, "RGB"),
        ("transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm", 1, "YBR_FULL_422"),
        ("transfer_syntaxes/TestPattern_Palette_16.dcm", 1, "PALETTE COLOR"),
        ("transfer_syntaxes/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm", 2, "MONOCHROME2"),
        ("transfer_syntaxes/liver_deflate.dcm", 3, "MONOCHROME2"),
        ("color_mono1_lut/dx_image_mono1.dcm", 1, "MONOCHROME1"),
    ],
)
def test_the_colour_space_after_decoding_is_told(data: Path, path: str, frames: int, photometric: str) -> None:
    """A decoder that undoes a colour transform changes what the samples mean, and the frame says so."""
    decoded = read_frames(data / path)
    assert len(decoded) == frames
    assert {frame.display.photometric for frame in decoded} == {photometric}


@pytest.mark.data
def test_four_lossless_test_patterns_show_the_same_picture(data: Path) -> None:
    """The same pattern as JPEG lossless RGB, JPEG baseline YBR and near-lossless JPEG-LS: the colours agree."""
    names = ("JPEG-Lossless_RGB", "JPEG-Baseline_YBR422", "JPEG-LS-NearLossless")
    exact, *others = (
        read_frames(data / f"transfer_syntaxes/TestPattern_{name}.dcm")[0].stored.astype(float) for name in names
    )
    for other in others:
        assert np.abs(exact - other).mean() < 4


@pytest.mark.data
def test_deflated_frames_equal_the_raw_segmentation(data: Path) -> None:
    """The youngest transfer syntax (each frame deflated), single bits: the same as its uncompressed twin."""
    raw, deflated = (read_frames(data / f"transfer_syntaxes/{name}.dcm") for name in ("liver", "liver_deflate"))
    for one, other in zip(raw, deflated, strict=True):
        np.testing.assert_array_equal(one.stored, other.stored)


def test_frames_are_picked_by_number(tmp_path: Path) -> None:
    """Asked for some frames, only these come, in the order asked."""
    stored = np.arange(5 * 4 * 6, dtype=np.uint16).reshape(5, 4, 6)
    path = save(image(stored, NumberOfFrames=5), tmp_path / "frames.dcm")
    for frame, number in zip(read_frames(path, [3, 1]), (3, 1), strict=True):
        np.testing.assert_array_equal(frame.stored, stored[number])


def test_single_bits_need_not_begin_at_a_byte(tmp_path: Path) -> None:
    """Frames of 1 bit follow each other without gaps: 15 pixels each, so the second begins in mid-byte."""
    bits = np.random.default_rng(5).integers(0, 2, (4, 3, 5), dtype=np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    elements: dict[str, Any] = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "NumberOfFrames": 4}
    path = save(image(bits, PixelData=packed, **elements), tmp_path / "bits.dcm")
    np.testing.assert_array_equal([frame.stored for frame in read_frames(path)], bits)


def test_planar_colours_are_put_together(tmp_path: Path) -> None:
    """Planar Configuration 1 holds all red, then all green, then all blue."""
    colours = np.random.default_rng(6).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    data = np.moveaxis(colours, -1, 0).tobytes()
    path = save(image(colours, PlanarConfiguration=1, PixelData=data), tmp_path / "planar.dcm")
    np.testing.assert_array_equal(read_frames(path)[0].stored, colours)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
def test_rle_is_decoded(tmp_path: Path, kind: Any) -> None:
    """RLE written by pydicom comes back the same."""
    stored = np.random.default_rng(7).integers(0, 120, (3, 12, 17)).astype(kind)
    dataset = image(stored, NumberOfFrames=3)
    dataset.compress(RLELossless, generate_instance_uid=False)
    decoded = read_frames(save(dataset, tmp_path / "rle.dcm"))
    np.testing.assert_array_equal([frame.stored for frame in decoded], stored)


def lying_codestream(tmp_path: Path, stream: bytes) -> Path:
    dataset = image(np.zeros((16, 16), np.uint16))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return save(dataset, tmp_path / "lie.dcm")


def siz(columns: int, rows: int) -> bytes:
    numbers = b"".join(n.to_bytes(4, "big") for n in (columns, rows, 0, 0, columns, rows, 0, 0))
    return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + numbers + b"\x00\x01\x0f\x01\x01"


def test_a_codestream_that_claims_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    """The decoder would allocate what the codestream says, so what it says is compared with the header first."""
    path = lying_codestream(tmp_path, siz(200_000, 200_000))
    with pytest.raises(UnsupportedSeriesError, match="200000 x 200000 x 1, the header says 16 x 16 x 1") as error:
        read_frames(path)
    assert error.value.code == "undecodable-pixels"


def test_rubbish_in_a_codestream_is_named(tmp_path: Path) -> None:
    """Bytes that no decoder reads: the file and the frame are named."""
    with pytest.raises(UnsupportedSeriesError, match=r"lie\.dcm: the pixels of frame 1 cannot be decoded"):
        read_frames(lying_codestream(tmp_path, bytes(range(256))))
    with pytest.raises(UnsupportedSeriesError, match="JPEG 2000"):
        read_frames(lying_codestream(tmp_path, siz(16, 16) + bytes(100)))


def test_compressed_bytes_that_cannot_hold_the_claim_are_refused(tmp_path: Path) -> None:
    """A header that claims 16,384 squared pixels of 300 bytes is refused before anything is allocated."""
    dataset = image(np.zeros((16, 16), np.uint16), Rows=16384, Columns=16384)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([siz(16384, 16384)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    with pytest.raises(UnsupportedSeriesError) as error:
        open_image(save(dataset, tmp_path / "bomb.dcm"))
    assert error.value.code == "implausible-size"


def test_fewer_frames_than_claimed_are_truncated(tmp_path: Path) -> None:
    """An encapsulated file with one frame of the three that it claims."""
    dataset = image(np.zeros((3, 12, 17), np.uint16), NumberOfFrames=3)
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = encapsulate([frame])
    with pytest.raises(UnsupportedSeriesError) as error:
        read_frames(save(dataset, tmp_path / "short.dcm"))
    assert error.value.code == "truncated-pixels"


@pytest.mark.data
def test_codestreams_tell_their_size(data: Path) -> None:
    """JPEG, JPEG-LS and JPEG 2000 headers are read for size, components, precision and colour markers."""
    for syntax in ("1.2.4.50", "1.2.4.51", "1.2.4.70", "1.2.4.80", "1.2.4.90"):
        opened = open_image(data / f"transfer_syntaxes/ct_matrix/CTImage_1.2.840.10008.{syntax}.dcm")
        claim = read_codestream(opened.encoded([0])[0])
        assert claim is not None
        assert (claim.rows, claim.columns, claim.components) == (512, 512, 1)
        assert claim.precision == {"1.2.4.50": 8, "1.2.4.51": 12}.get(syntax, 16)
    colour = open_image(data / "transfer_syntaxes/TestPattern_JPEG-Baseline_YBR422.dcm")
    claim = read_codestream(colour.encoded([0])[0])
    assert claim is not None
    assert claim.ycbcr is True
    assert read_codestream(b"\xff\xd8\xff") is None
    assert read_codestream(b"") is None


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, Window(40, 400)),
        ({"WindowCenter": [40, 300], "WindowWidth": [0, 1500]}, Window(300, 1500)),
        ({"WindowCenter": 0, "WindowWidth": 0}, None),
        (
            {"WindowCenter": 1, "WindowWidth": 0.5, "VOILUTFunction": "SIGMOID"},
            Window(1, 0.5, WindowFunction.SIGMOID),
        ),
        ({"WindowCenter": 1, "WindowWidth": 0.5}, None),
        ({}, None),
    ],
)
def test_the_first_window_that_makes_sense_is_taken(tmp_path: Path, elements: dict[str, Any], expected: Any) -> None:
    """Scanners write a width of 0 for no window, and several windows; LINEAR needs a width of 1."""
    path = save(image(np.zeros((4, 4), np.int16), **elements), tmp_path / "window.dcm")
    assert read_frames(path)[0].display.voi == expected


@pytest.mark.data
def test_modality_and_voi_tables_are_read(data: Path) -> None:
    """A modality table equals pydicom's application of it; a VOI table comes before a window."""
    path = data / "color_mono1_lut/mlut_18.dcm"
    (frame,) = read_frames(path)
    dataset = pydicom.dcmread(path)
    expected = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(frame.display.modality.apply(frame.stored).astype(np.int64), expected)
    (frame,) = read_frames(data / "color_mono1_lut/vlut_04.dcm")
    assert isinstance(frame.display.voi, LookUpTable)


@pytest.mark.data
@pytest.mark.parametrize("name", ["color_mono1_lut/gdcm-US-ALOKA-16.dcm", "transfer_syntaxes/examples_palette.dcm"])
def test_palettes_equal_pydicoms(data: Path, name: str) -> None:
    """Palette colours are those of pydicom."""
    (frame,) = read_frames(data / name)
    palette = frame.display.palette
    assert palette is not None
    tables = (palette.red, palette.green, palette.blue)
    colours = np.stack([table.apply(frame.stored) for table in tables], axis=-1)
    dataset = pydicom.dcmread(data / name)
    expected = pydicom.pixels.apply_color_lut(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(colours, expected)


def test_segmented_palettes_are_expanded(tmp_path: Path) -> None:
    """Discrete, linear and indirect segments (PS3.3 C.7.9.2)."""
    words = [0, 2, 10, 20, 1, 4, 60, 2, 1, 0, 0]  # 10 20, then 30 40 50 60, then the first segment again
    data = np.array(words, "<u2").tobytes()
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [8, 0, 16]
        elements[f"Segmented{colour}PaletteColorLookupTableData"] = data
    path = save(image(np.zeros((4, 4), np.uint8), **elements), tmp_path / "palette.dcm")
    palette = read_frames(path)[0].display.palette
    assert palette is not None
    assert palette.red.apply(np.arange(10)).tolist() == [10, 20, 30, 40, 50, 60, 10, 20, 20, 20]


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({"PixelSpacing": [2, 1]}, 2.0),
        ({"PixelSpacing": None, "PixelAspectRatio": [1, 2]}, 0.5),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.3, 0.2]}, 1.5),
        ({"PixelSpacing": None}, 1.0),
    ],
)
def test_pixel_aspect_is_height_over_width(tmp_path: Path, elements: dict[str, Any], aspect: float) -> None:
    """From any of the spacings, else the ratio, else square."""
    path = save(image(np.zeros((4, 4), np.int16), **elements), tmp_path / "aspect.dcm")
    assert read_frames(path)[0].display.aspect == pytest.approx(aspect)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(1, -1024, np.int16), (2, 0, np.int16), (-1, 5, np.int16), (1, 40000, np.float32), (0.5, 0, np.float32)],
)
def test_transform_is_exact_and_as_small_as_it_can_be(slope: float, intercept: float, kind: Any) -> None:
    """Whole results that fit are int16, all others float32, and none wraps around."""
    stored = np.array([[0, 1, 4095, 12000]], np.uint16)
    values = ModalityTransform(slope, intercept).apply(stored)
    assert values.dtype == kind
    np.testing.assert_array_equal(values, stored * float(slope) + intercept)


def test_narrowing_keeps_values() -> None:
    """Whole floats become int16; a fraction anywhere, or a number too large, does not."""
    assert narrow(np.array([1.0, -5.0])).dtype == np.int16
    assert narrow(np.array([1.0, 0.5])).dtype == np.float32
    assert narrow(np.array([40000])).dtype == np.float32


def test_tables_hold_their_ends() -> None:
    """Values outside of a table take its first or last entry (PS3.3 C.11.1.1)."""
    table = LookUpTable.from_data((3, -1, 16), [5, 6, 7])
    assert table.apply(np.array([-9, -1, 0, 1, 9])).tolist() == [5, 5, 6, 7, 7]
    assert len(LookUpTable.from_data((0, 0, 16), bytes(131072)).entries) == 131072
    with pytest.raises(ValueError, match="2 entries instead of 3"):
        LookUpTable.from_data((3, 0, 16), [1, 2])


def test_padding_is_read_in_the_pixels_sign() -> None:
    """63,536 and -2000 are the same 16 bits; a range has two ends."""
    header = image(np.zeros((2, 2), np.int16))
    header.add_new(0x00280120, "US", 63536)
    assert Padding.of(header, signed=True, bits_allocated=16) == Padding(-2000, -2000)
    header.add_new(0x00280121, "US", 63540)
    padding = Padding.of(header, signed=False, bits_allocated=16)
    assert padding == Padding(63536, 63540)
    assert padding.mask(np.array([63535, 63536, 63540, 63541])).tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", [np.uint16, np.bool_])
def test_of_many_frames_only_those_asked_for_are_read(tmp_path: Path, kind: Any) -> None:
    """A file may hold hours of ultrasound. Single bits go on from frame to frame without a gap (PS3.5 8.1.1)."""
    bits = np.random.default_rng(4).integers(0, 2, (60, 301, 203)).astype(kind)
    dataset = image(bits[0].astype(np.uint16), NumberOfFrames=60, PixelData=bits.tobytes())
    if kind is np.bool_:
        packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
        dataset.PixelData = packed + bytes(len(packed) % 2)
    path = save(dataset, tmp_path / "many.dcm")
    opened = open_image(path)
    tracemalloc.start()
    try:
        last, first = opened.encoded([59, 7])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * opened.frame_bytes + 100_000 < path.stat().st_size
    for frame, encoded in ((59, last), (7, first)):
        np.testing.assert_array_equal(decode(opened, frame, encoded)[0], bits[frame])
    in_memory = open_image(path.read_bytes())
    assert [bytes(one) for one in in_memory.encoded([59, 7])] == [bytes(last), bytes(first)]


def test_a_decoder_that_may_end_the_process_is_not_asked() -> None:
    """GDCM, which other packages bring along, aborts on some damaged frames: it is no fallback."""
    for syntax in DECODED:
        assert "gdcm" not in _plugins_for(UID(syntax))
    assert _plugins_for(RLELossless) == ["pydicom"]
