"""Headers that are cut, damaged or made to do harm: a right answer, within bounds of time, bytes and memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
)

from unit.ingest.dicom_objects import dataset, encoded, judge, run
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.header import read_dicom
from voxelmill_ingest.ranges import FIRST_READ, LARGEST_READ, MOST_READ, Window
from voxelmill_ingest.reasons import Reason, shown

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY = struct.pack("<HH2s", 0x0020, 0x000D, b"UI")


def put_before_identity(elements: bytes) -> bytes:
    """Put elements into a sound object, before Study Instance UID."""
    body = encoded(dataset())
    place = body.index(IDENTITY)
    return body[:place] + elements + body[place:]


def with_syntax(uid: str, data_set: bytes) -> bytes:
    """Make an object of a data set that has been encoded already."""
    sound = encoded(dataset())
    meta = sound[: sound.index(struct.pack("<HH2s", 0x0008, 0x0008, b"CS"))]
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    value = uid.encode() + b"\0" * (len(uid) % 2)
    assert old in meta
    return meta.replace(old, old[:6] + struct.pack("<H", len(value)) + value) + data_set


def deflated(data_set: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data_set) + packer.flush()


def asked_for(size: int, read: Callable[[int, int], bytes]) -> tuple[Instance | Refusal, list[int]]:
    """Read an object as ingest does, its first bytes in hand; return what was asked for, in KiB."""
    reading = read_dicom(Window(size, read(0, FIRST_READ)))
    asked: list[int] = []
    try:
        wanted = next(reading)
        while True:
            asked.append(wanted.length >> 10)
            wanted = reading.send(read(wanted.start, wanted.length))
    except StopIteration as end:
        return end.value, asked


def of_bytes(body: bytes) -> tuple[Instance | Refusal, list[int]]:
    return asked_for(len(body), lambda start, length: body[start : start + length])


def test_each_miss_of_a_long_header_reads_four_times_as_much() -> None:
    """Also where an element lies across the end of what is in hand, as nearly always one does."""
    element = struct.pack("<HH2sH", 0x0019, 0x1001, b"LO", 100) + b"x" * 100
    found, asked = of_bytes(put_before_identity(element * (3 << 20 >> 7)))
    assert isinstance(found, Instance)
    assert asked[:3] == [64, 256, 1024]
    assert len(asked) < 7


@pytest.mark.parametrize("length", [3 << 10, 6 << 10, 40 << 10])
def test_a_header_of_many_long_elements_takes_few_reads(length: int) -> None:
    """Each of them is jumped over, and the first read after a jump is small."""
    element = struct.pack("<HH2sHL", 0x0019, 0x1001, b"OB", 0, length) + bytes(length)
    found, asked = of_bytes(put_before_identity(element * ((12 << 20) // length)))
    assert isinstance(found, Instance)
    assert len(asked) < 40


def test_a_header_without_end_is_given_up() -> None:
    """The object is only as large as what is asked of it: 1 TiB of small elements."""
    element = struct.pack("<HH2sH", 0x0019, 0x1001, b"LO", 120) + b"x" * 120
    sound = encoded(dataset())
    head = sound[: sound.index(IDENTITY)]
    endless = element * (LARGEST_READ // len(element) + 2)

    def read(start: int, length: int) -> bytes:
        if start < len(head):
            return (head + endless)[start : start + length]
        offset = (start - len(head)) % len(element)
        return endless[offset : offset + length]

    found, asked = asked_for(1 << 40, read)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_HEADER
    assert sum(asked) << 10 <= MOST_READ + FIRST_READ
    assert len(asked) < 60


def test_what_is_read_of_the_fragments_counts_with_the_header() -> None:
    ds = dataset()
    ds.PixelData = encapsulate([bytes(100)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    body = encoded(ds, JPEG2000Lossless)
    in_hand = body[: body.index(struct.pack("<HH", 0x7FE0, 0x0010)) + 12]
    sound, _ = run(read_dicom(Window(len(body), in_hand)), body)
    assert isinstance(sound, Instance)
    found, read = run(read_dicom(Window(len(body), in_hand, read=MOST_READ - 10)), body)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_HEADER
    assert read == 0


def test_sequences_nested_ten_thousand_deep_are_stepped_over() -> None:
    opening = struct.pack("<HH2sHL", 0x8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    opening += struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    inside = struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", 4) + b"9.9\0"
    found = judge(put_before_identity(opening * 10_000 + inside + closing * 10_000))
    assert found == judge(encoded(dataset()))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_an_object_that_is_cut_at_any_byte_of_its_header_is_refused(syntax: str) -> None:
    body = encoded(dataset(), syntax)
    end = len(body) if syntax == DeflatedExplicitVRLittleEndian else len(body) - 48
    for size in range(1, end - 8):  # the last bytes of a deflated stream may hold no more than the end of its pixels
        found = judge(body[:size])
        assert isinstance(found, Refusal), size
        # Cut between two elements it is an object that lacks the rest of them.
        expected = {Reason.TRUNCATED, Reason.INVALID_HEADER, Reason.NO_PIXEL_DATA}
        assert found.reason in expected or found.reason.startswith("missing-"), size


def test_a_deflated_bomb_is_inflated_in_pieces_only() -> None:
    """60 MB of zeros, which are no header. pydicom would inflate all of them at once."""
    bomb = deflated(struct.pack("<HH2sHL", 0x8, 0x9, b"OB", 0, 0xFFFFFFF0) + bytes(60 << 20))
    body = with_syntax(DeflatedExplicitVRLittleEndian, bomb)
    judge(body[:2000])  # imports what it needs
    tracemalloc.start()
    try:
        found = judge(body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_HEADER
    assert most < 16 << 20


def test_a_deflated_object_that_is_cut_is_said_to_be() -> None:
    body = encoded(dataset(), DeflatedExplicitVRLittleEndian)
    for missing in (20, 60, 150):
        found = judge(body[:-missing])
        assert isinstance(found, Refusal)
        assert found.reason is Reason.TRUNCATED


def test_deflated_pixels_that_are_announced_to_be_too_few_are_refused() -> None:
    found = judge(encoded(dataset(PixelData=bytes(20)), DeflatedExplicitVRLittleEndian))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.TRUNCATED


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_a_deflated_object_of_another_syntax_is_refused_for_its_syntax(syntax: str) -> None:
    sound = encoded(dataset())
    data_set = sound[sound.index(struct.pack("<HH2s", 0x0008, 0x0008, b"CS")) :]
    found = judge(with_syntax(syntax, deflated(data_set)))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x0008_0060, b"CS", b"C\0"),
        (0x0028_0004, b"CS", b"\x1b[2J\0\0\0\0\0\0\0"),
        (0x0008_0016, b"UI", b"1.2.840.10008.5.1.4.1.1.88.\0\n"),
    ],
)
def test_nothing_that_no_database_keeps_or_a_terminal_obeys_is_said(tag: int, vr: bytes, value: bytes) -> None:
    """Neither in the identity of an object, nor in a refusal or warning."""
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr))
    (length,) = struct.unpack_from("<H", body, place + 6)
    value = (value + b"x" * length)[: max(length, len(value) + 1)]
    value += b"x" * (len(value) % 2)
    changed = body[: place + 6] + struct.pack("<H", len(value)) + value + body[place + 8 + length :]
    found = judge(changed)
    said = [*found.model_dump(exclude={"warnings"}).values(), *(getattr(found, "warnings", ()))]
    texts = [one for one in said if isinstance(one, str)]
    assert any("x" in one or "no code" in one for one in texts), "nothing is said of the value"
    assert all(one.isprintable() for one in texts)


def test_a_uid_that_is_a_name_is_not_said() -> None:
    """Some write names instead of UIDs."""
    body = encoded(dataset(SeriesInstanceUID="1.2.3.4.5.6.7.8"))
    found = judge(body.replace(b"1.2.3.4.5.6.7.8\0", b"Secret_Name_CT1\0"))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_UID
    assert "ecret" not in found.model_dump_json()
    assert "(0020,000E)" in found.detail


def test_what_is_shown_can_be_kept() -> None:
    assert shown("Größe/画像") == "Größe/画像"
    assert shown("a\0b\x1b[2J\n\udcff") == "a\\x00b\\x1b[2J\\n\\udcff"
    assert shown("abcdef", 3) == "abc"
    assert shown("\0\0\0", 6) == "\\x00\\x"
