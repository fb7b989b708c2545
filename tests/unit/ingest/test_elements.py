"""The walker against its referee: every element is the one that pydicom reads, or the walker says that it cannot."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from unit.ingest.dicom_objects import BITS, dataset, encoded, judge, run
from voxelmill_ingest.elements import LONGEST_VALUE, InvalidDicomError, Wanted, open_data_set
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.ranges import Window
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.referee import second_opinion
from voxelmill_ingest.tags import WANTED
from voxelmill_ingest.values import number, text

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_ingest.elements import Elements


def walked(body: bytes, wanted: Wanted) -> Elements:
    """Walk over a whole object with small reads."""

    def reading() -> Any:
        walker = yield from open_data_set(Window(len(body)), wanted)
        yield from walker.run()
        return walker.found

    found: Elements = run(reading(), body)[0]
    return found


def raw_values(body: bytes) -> tuple[Dataset, dict[int, bytes], set[int]]:
    """Return what pydicom reads, undecoded: the values at the top level, and the tags of sequences."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what it mends
        ds = pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True, force=True)
        values, sequences = {}, set()
        for tag in [int(tag) for tag in ds.keys()]:  # noqa: SIM118 - to go over a data set decodes it
            element = ds.get_item(tag)
            if element.VR == "SQ" or (isinstance(element, RawDataElement) and element.length == 0xFFFFFFFF):
                sequences.add(tag)
            elif isinstance(element, RawDataElement):
                values[tag] = element.value or b""
            elif element.VR == "US":  # Pixel Representation, decoded because sequences may need it
                values[tag] = struct.pack("<H" if ds.original_encoding[1] else ">H", element.value)
            else:  # pydicom hands out empty values, and the character set, decoded
                parts = element.value if isinstance(element.value, MultiValue) else [element.value or ""]
                values[tag] = "\\".join(parts).encode()
    return ds, values, sequences


def agrees(body: bytes) -> bool:
    """Compare every element; false if the walker cannot follow the object, which pydicom is asked about then."""
    ds, values, sequences = raw_values(body)
    values = {tag: value for tag, value in values.items() if tag >> 16}  # group 0 after the data set is padding
    wanted = Wanted(dict.fromkeys((*values, *sequences), b"UN"))
    try:
        found = walked(body, wanted)
    except InvalidDicomError:
        return False
    if found.cut:
        return False
    kept = {tag: value for tag, value in found.values.items() if tag >> 16 > 2 and tag not in sequences}
    charset = kept.get(0x0008_0005)
    if charset is not None:
        kept[0x0008_0005] = b"\\".join(part.strip(b" \0") for part in charset.split(b"\\"))
    assert kept == {tag: value for tag, value in values.items() if len(value) <= LONGEST_VALUE}
    long = {tag for tag, value in values.items() if len(value) > LONGEST_VALUE}
    assert {tag for tag in found.unread if tag >> 16 > 2} - sequences == long
    assert found.big_endian == (ds.original_encoding[1] is False)
    return True


def test_every_element_of_every_real_file_is_the_one_that_pydicom_reads(data: Path) -> None:
    """Some twenty are broken: there the walker says so, and does not go on."""
    same, given_up = 0, []
    for path in sorted(data.rglob("*")):
        if not path.is_file():
            continue
        body = path.read_bytes()
        if body[128:132] == b"DICM":
            if agrees(body):
                same += 1
            else:
                given_up.append(path.name)
    assert same > 480
    assert set(given_up) <= {"rtplan_truncated.dcm", "DICOMDIR-empty.dcm"}, given_up


TEXT = st.text("ABCXYZ 0123456789", max_size=20)
PLAIN = st.one_of(
    st.tuples(st.sampled_from(["LO", "SH", "CS"]), TEXT.map(lambda word: word[:16])),
    st.tuples(st.just("DS"), st.floats(-9999, 9999).map(lambda value: f"{value:.4f}")),
    st.tuples(st.just("US"), st.integers(0, 65535)),
    st.tuples(st.just("FD"), st.floats(allow_nan=False)),
    st.tuples(st.sampled_from(["UT", "UC"]), TEXT),
    st.tuples(st.sampled_from(["OB", "UN"]), st.binary(max_size=40).map(lambda value: value + bytes(len(value) % 2))),
    st.tuples(st.just("OB"), st.just(bytes(20_000))),
)
PLACES = st.sampled_from(
    [0x0008_1030, 0x0009_0010, 0x0009_1001, 0x0010_4000, 0x0018_1030, 0x0019_1008, 0x0020_4000, 0x0029_1010]
)
OF_SEQUENCES = st.sampled_from([0x0008_1140, 0x0009_1002, 0x0018_9346, 0x0029_1020, 0x0040_0275])


def items(depth: int) -> st.SearchStrategy[Dataset]:
    element = st.tuples(PLACES, PLAIN)
    if depth:
        element = st.one_of(element, st.tuples(OF_SEQUENCES, sequences(depth - 1)))
    return st.tuples(st.lists(element, max_size=5), st.booleans()).map(_data_set)


def sequences(depth: int) -> st.SearchStrategy[tuple[str, Any]]:
    value = st.tuples(st.lists(items(depth), max_size=3), st.booleans())
    return value.map(lambda pair: ("SQ", pair))


def _data_set(parts: tuple[list[tuple[int, tuple[str, Any]]], bool]) -> Dataset:
    ds = Dataset()
    for tag, (vr, value) in parts[0]:
        _put(ds, tag, vr, value)
    ds.is_undefined_length_sequence_item = parts[1]
    return ds


def _put(ds: Dataset, tag: int, vr: str, value: Any) -> None:
    if vr == "SQ":
        ds[tag] = DataElement(tag, "SQ", Sequence(value[0]), is_undefined_length=value[1])
    else:
        ds[tag] = DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)


@settings(max_examples=60, deadline=None)
@given(
    extra=st.lists(st.one_of(st.tuples(PLACES, PLAIN), st.tuples(OF_SEQUENCES, sequences(2))), max_size=8),
    syntax=st.sampled_from(
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
    ),
)
def test_every_element_of_any_data_set_is_the_one_that_pydicom_reads(
    extra: list[tuple[int, tuple[str, Any]]], syntax: str
) -> None:
    """Sequences and items of defined and undefined length, nested; private elements; all four encodings."""
    ds = dataset()
    for tag, (vr, value) in extra:
        _put(ds, tag, vr, value)
    body = encoded(ds, syntax)
    assert agrees(body)
    assert isinstance(judge(body), Instance)


@settings(max_examples=150, deadline=None)
@given(
    tag=st.sampled_from([0x0008_0060, 0x0020_0013, 0x0028_0010, 0x0028_1052]),
    vr=st.sampled_from([b"ZZ", b"US", b"LO", b"UN", b"OB", b"SQ", b"U1", b"\0\0"]),
    length=st.integers(0, 70),
)
def test_a_wrong_vr_or_length_is_read_as_pydicom_reads_it_or_given_up(tag: int, vr: bytes, length: int) -> None:
    body = encoded(dataset())
    place = body.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    changed = body[: place + 4] + vr + struct.pack("<H", length) + body[place + 8 :]
    found = judge(changed)
    if isinstance(found, Instance):
        values = raw_values(changed)[1]
        assert struct.pack("<HH", found.rows, found.columns) == values[0x0028_0010][:2] + values[0x0028_0011][:2]


def _nested(vr: bytes, first: bytes) -> bytes:
    """Make a sequence of undefined length, with one item of undefined length that holds `first`."""
    sequence = struct.pack("<HH2sHL", 0x0009, 0x1001, vr, 0, 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return sequence + item + first + ends


EXPLICIT = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"MR"
IMPLICIT = struct.pack("<HHL", 0x0008, 0x0060, 2) + b"MR"


@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
@pytest.mark.parametrize("first", [EXPLICIT, IMPLICIT, b""], ids=["explicit", "implicit", "empty"])
def test_items_are_followed_in_the_encoding_that_they_have(vr: bytes, first: bytes) -> None:
    """Within UN items are implicit; some writers make them explicit, and implicit ones where they may not be."""
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    changed = body[:place] + _nested(vr, first) + body[place:]
    assert agrees(changed)
    assert judge(changed) == judge(body)


@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
def test_a_length_that_looks_like_a_vr_is_a_length_where_items_are_implicit(vr: bytes) -> None:
    """0x4C4F bytes: written without a VR, as OL would be."""
    long = struct.pack("<HHL", 0x0010, 0x4000, 0x4C4F - 1) + bytes(0x4C4F - 1)
    also = struct.pack("<HHL", 0x0020, 0x4000, 0x4C4F) + bytes(0x4C4F)
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    changed = body[:place] + _nested(vr, IMPLICIT + long + also) + body[place:]
    assert judge(changed) == judge(body)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_pixels_of_an_icon_are_not_those_of_the_object(compressed: bool) -> None:
    """Nor is what stands in its fragments taken for elements (PS3.3 C.7.6.1.1.6)."""
    fragment = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) * 4 + struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", 4) + b"9.9\0"
    if compressed:
        value = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(fragment)) + fragment
        pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + value
        pixels += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    else:
        pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, len(fragment)) + fragment
    rows = struct.pack("<HH2sHH", 0x0028, 0x0010, b"US", 2, 64)
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    changed = body[:place] + _nested(b"SQ", rows + pixels) + body[place:]
    assert agrees(changed)
    assert judge(changed) == judge(body)


def test_a_vr_that_is_misspelt_has_its_length_where_most_have_it() -> None:
    """One that is younger than this program has the long form, and zeros in that place (PS3.5 7.1.2)."""
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0008, 0x0060, b"CS"))
    misspelt = body[: place + 4] + b"ZZ" + body[place + 6 :]
    assert agrees(misspelt)
    assert judge(misspelt) == judge(body)
    element = struct.pack("<HH2sHL", 0x0018, 0x9999, b"ZZ", 0, 6) + b"9.9.9\0"
    place = body.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    assert judge(body[:place] + element + body[place:]) == judge(body)


def test_a_delimiter_that_closes_nothing_is_left_to_pydicom() -> None:
    """The walker gives up there; pydicom steps over it, and its reading is taken with a warning."""
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    changed = body[:place] + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) + body[place:]
    with pytest.raises(InvalidDicomError):
        walked(changed, WANTED)
    found, whole = judge(changed), judge(body)
    assert isinstance(found, Instance)
    assert [warning.partition(":")[0] for warning in found.warnings] == ["unusual-encoding"]
    assert found.model_copy(update={"warnings": ()}) == whole


def test_what_pydicom_cannot_follow_either_is_refused() -> None:
    body = encoded(dataset())
    place = body.index(struct.pack("<HH2s", 0x0028, 0x0010, b"US"))
    found = judge(body[:place] + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + body[place:])
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_HEADER


def test_the_referee_reads_what_the_walker_reads(data: Path) -> None:
    for name in ("transfer_syntaxes/MR_small_bigendian.dcm", "transfer_syntaxes/emri_small_RLE.dcm"):
        body = (data / name).read_bytes()
        opinion, own = run(second_opinion(Window(len(body)), WANTED), body)[0], walked(body, WANTED)
        own.values.pop(0x0002_0010, None)
        opinion.values.pop(0x0002_0010, None)
        for found in (opinion, own):
            found.values[0x0008_0005] = found.values.get(0x0008_0005, b"").strip()
        assert (opinion.values, opinion.pixels) == (own.values, own.pixels)
        assert (opinion.transfer_syntax_uid, opinion.big_endian) == (own.transfer_syntax_uid, own.big_endian)


@pytest.mark.parametrize(
    ("tag", "vr", "value", "read"),
    [
        (0x0028_0010, b"IS", b"64", 64),
        (0x0028_0010, b"UL", b"\x40\0\0\0", 64),
        (0x0028_0010, b"UN", b"\x40\0", 64),
        (0x0028_0010, b"LO", b"many", None),
        (0x0028_0008, b"US", b"\x02\0", 2),
    ],
)
def test_a_number_is_read_in_the_vr_that_it_was_written_in(tag: int, vr: bytes, value: bytes, read: int | None) -> None:
    header = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    if vr == b"UN":
        header = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value))
    body = encoded(dataset())
    meta = body[: body.index(struct.pack("<HH2s", 0x0008, 0x0008, b"CS"))]
    found = walked(meta + header + value, WANTED)
    assert number(found, tag) == read
    if read is not None:
        assert text(found, tag) in {str(read), value.decode("latin-1").strip("\0 ")}


def test_rows_that_are_written_as_text_are_no_other_number() -> None:
    """Two characters read as a binary number would be a plausible, wrong one."""
    ds = dataset(**BITS[16])
    body = encoded(ds)
    header = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2)
    found = judge(body.replace(header + b"\x04\0", struct.pack("<HH2sH", 0x0028, 0x0010, b"IS", 2) + b"4 "))
    assert isinstance(found, Instance)
    assert found.rows == 4
