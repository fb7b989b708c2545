"""Frames, whole objects and pictures of every transfer syntax, with pydicom as the referee."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

from unit.shared.imaging_files import image, save
from voxelmill_gateway.dicomweb.parsing import read_header
from voxelmill_gateway.dicomweb.transcoding import frames_of, transcode
from voxelmill_gateway.task import Draw
from voxelmill_gateway.work import run
from voxelmill_shared.imaging import read_frames
from voxelmill_shared.work import UnsupportedSeriesError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

REAL = (
    "transfer_syntaxes/CT_small.dcm",  # Explicit VR Little Endian
    "transfer_syntaxes/MR_small_bigendian.dcm",
    "transfer_syntaxes/image_dfl.dcm",  # deflated
    "transfer_syntaxes/JPGLosslessP14SV1_1s_1f_8b.dcm",
    "transfer_syntaxes/JPEG-lossy.dcm",  # 12 bits
    "transfer_syntaxes/JLSL_16_15_1_1F.dcm",
    "transfer_syntaxes/emri_small_jpeg_ls_lossless.dcm",
    "transfer_syntaxes/emri_small_RLE.dcm",
    "transfer_syntaxes/emri_small_big_endian.dcm",
    "transfer_syntaxes/HTJ2KLossless_08_RGB.dcm",
    "transfer_syntaxes/SC_rgb_jpeg_dcmd.dcm",
    "transfer_syntaxes/examples_rgb_color.dcm",
    "transfer_syntaxes/examples_palette.dcm",
    "transfer_syntaxes/TestPattern_JPEG-Lossless_RGB.dcm",
)


def silent(_):
    """Take no note of progress."""


def pixels_of(path):
    """Return what pydicom decodes, frame by frame; what it has no decoder for, the pipeline's own."""
    dataset = pydicom.dcmread(path)
    try:
        found = pixel_array(dataset)
    except RuntimeError:
        return np.stack([frame.stored for frame in read_frames(path)])
    return found if int(dataset.get("NumberOfFrames") or 1) > 1 else found[None]


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_frames_and_objects_equal_pydicoms_pixels(data, tmp_path, name):
    """A decoded frame, and the object written anew, hold the pixels that pydicom decodes (RGB where it gives RGB)."""
    path = data / name
    dataset = pydicom.dcmread(path)
    frames = int(dataset.get("NumberOfFrames") or 1)
    expected = pixels_of(path)
    wanted = sorted({0, frames // 2, frames - 1})
    lossy = name.endswith(("SC_rgb_jpeg_dcmd.dcm", "JPEG-lossy.dcm"))
    for number, body in zip(wanted, frames_of(path, wanted, decode=True), strict=True):
        found = np.frombuffer(body, expected.dtype.newbyteorder("<")).reshape(expected[number].shape)
        np.testing.assert_allclose(found.astype(float), expected[number], atol=3 if lossy else 0)
    transcode(path, tmp_path / "out" / "decoded.dcm")
    written = pydicom.dcmread(tmp_path / "out" / "decoded.dcm")
    assert written.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert written.SOPInstanceUID == dataset.SOPInstanceUID
    np.testing.assert_allclose(pixel_array(written).reshape(expected.shape).astype(float), expected, atol=3 * lossy)


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_headers_tell_where_plain_frames_lie(data, name):
    """Where a header says that frames lie as they are to be given, the file has just those bytes there."""
    path = data / name
    body = path.read_bytes()
    header = read_header(path, len(body))
    assert header.frames == int(pydicom.dcmread(path).get("NumberOfFrames") or 1)
    if header.offset is None:
        return
    last = header.frames - 1
    start = header.offset + last * header.frame_bytes
    assert [body[start : start + header.frame_bytes]] == frames_of(path, [last], decode=True)
    assert read_header(body[: header.offset + 64], len(body)) == header
    assert read_header(body[: header.offset - 200], len(body)) is None


def test_single_bits_are_counted_from_the_first_of_a_frame(tmp_path):
    """Frames of single bits that begin within a byte are given from their own first bit on (PS3.5 8.1.1)."""
    bits = np.random.default_rng(1).integers(0, 2, (3, 5, 5), np.uint8)
    dataset = image(bits, BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=3)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + bytes(len(packed) % 2)
    path = save(dataset, tmp_path / "bits.dcm")
    for frame, body in enumerate(frames_of(path, [0, 1, 2], decode=True)):
        found = np.unpackbits(np.frombuffer(body, np.uint8), count=25, bitorder="little").reshape(5, 5)
        np.testing.assert_array_equal(found, bits[frame])
    transcode(path, tmp_path / "again.dcm")
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "again.dcm").pixel_array, bits)


@pytest.mark.data
@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp"])
def test_pictures_are_windowed_and_square(data, media_type):
    """A picture has the image's proportions, and the window that is asked for decides what is black and white."""
    path = data / "transfer_syntaxes/CT_small.dcm"
    for window, level in (((5000, 10, "linear"), 0), ((-5000, 10, "linear"), 255)):
        picture = Image.open(BytesIO(run(Draw(path, None, media_type, window=window), silent)))
        assert picture.size == (128, 128)
        assert np.asarray(picture.convert("L")).mean() == pytest.approx(level, abs=2)


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["transfer_syntaxes/SC_ybr_full_422_uncompressed.dcm", "transfer_syntaxes/examples_palette.dcm"]
)
def test_colours_are_drawn_in_colour(data, name):
    """Colours by palette and by luminance and chrominance become red, green and blue."""
    picture = Image.open(BytesIO(run(Draw(data / name, 0, "image/png"), silent)))
    assert picture.mode == "RGB"
    assert np.ptp(np.asarray(picture).astype(int), axis=-1).max() > 100


def test_what_is_no_image_is_refused_with_a_reason(tmp_path):
    """A frame that is not there, and bytes that are no image, give a reason and no picture."""
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "one.dcm")
    with pytest.raises(UnsupportedSeriesError, match="1 frame"):
        run(Draw(path, 1, "image/png"), silent)
    with pytest.raises(UnsupportedSeriesError):
        frames_of(path, [3], decode=False)
    (tmp_path / "junk.dcm").write_bytes(b"no image" * 100)
    with pytest.raises(UnsupportedSeriesError):
        run(Draw(tmp_path / "junk.dcm", 0, "image/png"), silent)
