"""What mutants of real files once did: each is an answer in one line now, and costs no more than the file has bytes."""

from __future__ import annotations

import gzip
import resource
import struct
import time
import tracemalloc
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mutants.bombs import deflated as with_zeros
from unit.shared.imaging_files import along_z, image, numbered, save, write_series
from voxelmill_shared.errors import UndecodableMessageError
from voxelmill_shared.events import Envelope
from voxelmill_shared.imaging import open_image, read_frames, read_nifti, read_series
from voxelmill_shared.imaging.dimensions import attributes_of
from voxelmill_shared.imaging.palette import expand_segments
from voxelmill_shared.imaging.transform import ModalityTransform
from voxelmill_shared.text import shown
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

UNDEFINED = 0xFFFFFFFF


def refused(work: Callable[[], object]) -> UnsupportedSeriesError:
    with pytest.raises(UnsupportedSeriesError) as error:
        work()
    assert error.value.reason.isprintable()
    return error.value


@contextmanager
def most_address_space(more: int) -> Iterator[None]:
    """Bound what this process may allocate to so many bytes more than it has."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - a pseudo file, which pathlib reads no better
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_length_that_is_a_lie_costs_no_memory(tmp_path: Path) -> None:
    """An element of 4 GiB in a file of 1 KiB: Python would allocate what is asked for before it reads."""
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "a.dcm")
    whole = path.read_bytes()
    place = whole.index(b"\x28\x00\x02\x00US")
    path.write_bytes(whole[:place] + struct.pack("<HH2sHL", 0x0021, 0x1010, b"OB", 0, UNDEFINED - 1) + whole[place:])
    with most_address_space(1 << 30):
        assert refused(lambda: open_image(path)).code in {"unreadable-header", "not-an-image"}


def deflated(path: Path, mib: int) -> Path:
    """Write an image whose deflated data set ends with so many MiB of zeros."""
    dataset = image(np.zeros((4, 4), np.int16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    sound = save(dataset, path).read_bytes()
    (length,) = struct.unpack_from("<L", sound, 140)
    begin = 144 + length
    path.write_bytes(sound[:begin] + with_zeros(zlib.decompress(sound[begin:], -15), mib))
    return path


def test_a_bomb_in_a_deflated_data_set_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    """130 MiB of zeros from 600 KB; pydicom would inflate all of them, and hold them six times."""
    path = deflated(tmp_path / "bomb.dcm", 130)
    with most_address_space(64 << 20):
        assert refused(lambda: open_image(path)).code == "implausible-size"
    assert open_image(deflated(tmp_path / "sound.dcm", 0)).rows == 4


def test_a_deflated_data_set_that_is_cut_is_unreadable(tmp_path: Path) -> None:
    path = deflated(tmp_path / "cut.dcm", 0)
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(lambda: open_image(path)).code in {"unreadable-header", "truncated-pixels", "not-an-image"}


CONTROLS = "\x1b[2Ja\nTraceback (most recent call last):"


def test_what_a_header_says_of_itself_makes_no_second_line(tmp_path: Path) -> None:
    """Control characters in Photometric Interpretation and in what tells parts of a series apart."""
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "a.dcm")
    whole = path.read_bytes()
    place = whole.index(b"CS\x0c\x00MONOCHROME2 ")
    path.write_bytes(whole[: place + 4] + b"MONO\n\x1b[2J\x07\x07\0" + whole[place + 16 :])
    assert refused(lambda: read_series([path])).code == "colour-images"
    paths = write_series(tmp_path, numbered(4), along_z(4))
    changed = paths[0].read_bytes()
    place = changed.index(b"\x08\x00\x60\x00CS\x02\x00CT")
    value = CONTROLS.encode() + b" " * (len(CONTROLS) % 2)
    head = b"\x08\x00\x60\x00CS" + struct.pack("<H", len(value))
    paths[0].write_bytes(changed[:place] + head + value + changed[place + 10 :])
    refused(lambda: read_series(paths))


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("plain é 肺", 300, "plain é 肺"),
        ("a\nb\x1b\0", 300, "a\\nb\\x1b\\x00"),
        ("x" * 400, 300, "x" * 300),
        ("\u202e", 9, "\\u202e"),
    ],
)
def test_text_of_others_is_shown_escaped(text: str, most: int, expected: str) -> None:
    assert shown(text, most) == expected


def test_a_message_that_quotes_control_characters_is_one_line() -> None:
    with pytest.raises(UndecodableMessageError) as error:
        Envelope.decode(b'{"id": "\\u0000", "type": "a\\nb"}')
    assert str(error.value).isprintable()


def cut_sequence() -> bytes:
    """Encode a sequence of functional groups that ends in the middle of an item's head."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + b"\xfe\xff"
    return struct.pack("<HH2sHL", 0x5200, 0x9229, b"SQ", 0, len(item)) + item


def test_a_sequence_that_ends_too_soon_is_an_unreadable_header(tmp_path: Path) -> None:
    """The parser reads it when it is asked for, and says so by an OSError without a number."""
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "a.dcm")
    whole = path.read_bytes()
    place = whole.index(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(whole[:place] + cut_sequence() + whole[place:])
    assert refused(lambda: read_frames(path)).code == "unreadable-header"


def test_what_cannot_be_read_tells_no_frames_apart(tmp_path: Path) -> None:
    """A group that ends too soon is absent, as everything that cannot be read; the others are read."""
    path = save(image(np.zeros((4, 4), np.int16), EchoTime="5"), tmp_path / "a.dcm")
    whole = path.read_bytes()
    place = whole.index(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(whole[:place] + cut_sequence() + whole[place:])
    assert attributes_of(open_image(path), 0)["EchoTime"] == 5.0


def test_a_palette_segment_without_entries_is_refused() -> None:
    """An indirect segment would point to it 65,535 times, and 8,000 of those make no entry in an hour."""
    words = [0, 0, *[2, 0xFFFF, 0, 0] * 8_000]
    began = time.process_time()
    with pytest.raises(ValueError, match="without entries"):
        expand_segments(struct.pack(f"<{len(words)}H", *words), 16)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "RescaleIntercept"])
@pytest.mark.parametrize("quick", [True, False])
def test_digits_that_underscores_group_are_no_number(tmp_path: Path, keyword: str, *, quick: bool) -> None:
    """Python's float takes 1_5 for 15; a decimal string has no underscore (PS3.5 6.2)."""
    paths = write_series(tmp_path, numbered(3), along_z(3))
    for path in paths:
        whole = path.read_bytes()
        tag = {"PixelSpacing": 0x00280030, "ImagePositionPatient": 0x00200032, "RescaleIntercept": 0x00281052}[keyword]
        place = whole.index(struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, b"DS"))
        (length,) = struct.unpack_from("<H", whole, place + 6)
        value = b"1_5\\1_5\\1_5"[: {"PixelSpacing": 7, "ImagePositionPatient": 11}.get(keyword, 3)] + b" "
        after = whole[place + 8 + length :]
        if not quick:  # an element out of order: pydicom is asked
            after = after.replace(b"\xe0\x7f\x10\x00OW", struct.pack("<HH2sH", 8, 5, b"CS", 0) + b"\xe0\x7f\x10\x00OW")
        path.write_bytes(whole[: place + 6] + struct.pack("<H", len(value)) + value + after)
    assert refused(lambda: read_series(paths)).code in {"bad-geometry", "unreadable-header"}


def test_a_sound_decimal_string_is_a_number() -> None:
    assert ModalityTransform.plain(b"1.5 ", b"-1.024e3").intercept == -1024


def nifti(path: Path, kind: Any = nib.Nifti1Image, **header: Any) -> Path:
    made = kind(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    body = bytearray(made.to_bytes())
    for place, (layout, value) in header.items():
        struct.pack_into(f"<{layout}", body, int(place.removeprefix("at")), value)
    path.write_bytes(gzip.compress(body + bytes(1 << 20)) if path.suffix == ".gz" else bytes(body))
    return path


def test_voxels_that_begin_a_gigabyte_on_cost_no_memory(tmp_path: Path) -> None:
    path = nifti(tmp_path / "far.nii.gz", at108=("f", 1e9))
    with most_address_space(256 << 20):
        assert refused(lambda: read_nifti(path)).code == "truncated-pixels"


@pytest.mark.parametrize("value", [1e200, -1e160, 1e9])
def test_an_affine_beyond_any_scanner_is_refused(tmp_path: Path, value: float) -> None:
    """The square of 1e200 is infinite: no comparison with what follows from it was ever true."""
    path = nifti(tmp_path / "a.nii", nib.Nifti2Image, at400=("d", value))
    assert refused(lambda: read_nifti(path)).code == "bad-geometry"
    assert read_nifti(nifti(tmp_path / "b.nii", nib.Nifti2Image)).voxels.shape == (4, 4, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"at80": ("f", 3.0)}, "by its pixdim"),  # pixdim[1]
        ({"at288": ("f", 2.0)}, "by its pixdim"),  # srow_y[2]: the column is longer now
        ({"at268": ("f", 40.0)}, "its qform"),  # qoffset_x
        ({"at268": ("f", 0.0)}, ""),
        ({"at254": ("h", 4), "at80": ("f", 3.0)}, ""),  # an atlas's space scales as it likes
    ],
)
def test_a_nifti_header_that_contradicts_itself_is_said_to(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A flipped bit in pixdim, sform or qform would else lay every voxel somewhere else without a word."""
    both = {"at252": ("h", 1), "at254": ("h", 1)}
    found = read_nifti(nifti(tmp_path / "a.nii", **(both | change))).warnings
    assert any(said in line for line in found) if said else not found


@pytest.mark.parametrize(("slope", "kind"), [(2.0, np.int16), (0.5, np.float32), (9999.0, np.float32)])
def test_a_rescaled_nifti_costs_little_more_than_its_result(tmp_path: Path, slope: float, kind: type) -> None:
    """Not a volume of doubles and another to see whether they are whole: 17 bytes and more for each of a byte."""
    made = nib.Nifti1Image(np.arange(8 << 20, dtype=np.uint8).reshape(8, 1024, 1024) % 7, np.eye(4))
    made.header.set_slope_inter(slope, 3)
    made.header["scl_slope"], made.header["scl_inter"] = slope, 3
    (tmp_path / "a.nii").write_bytes(made.to_bytes())
    tracemalloc.start()
    volume = read_nifti(tmp_path / "a.nii")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.voxels.dtype == kind
    assert volume.voxels.max() == 6 * slope + 3
    assert peak < (8 << 20) * 12
