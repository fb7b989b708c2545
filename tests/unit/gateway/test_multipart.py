"""Multipart bodies: told part by part however they are cut up, and one clear reason for those that are none."""

from __future__ import annotations

import random
import re

import pytest

from voxelmill_gateway.multipart import (
    LONGEST_HEADER,
    LONGEST_PREAMBLE,
    MOST_HEADERS,
    MalformedBodyError,
    MediaType,
    MultipartReader,
    PartBegins,
    PartData,
    boundary_of,
)

BOUNDARY = b"b-X'y"


def body_of(*parts, head=b"Content-Type: application/dicom\r\n", preamble=b"", epilogue=b""):
    """Write a multipart body by hand."""
    written = b"\r\n".join(b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + part for part in parts)
    return preamble + written + b"\r\n--" + BOUNDARY + b"--" + epilogue


def read(body, step=1 << 20):
    """Read a body in pieces; return the headers and the bytes of each part."""
    reader, found = MultipartReader(BOUNDARY), []
    for start in range(0, len(body), step):
        for event in reader.feed(body[start : start + step]):
            if isinstance(event, PartBegins):
                found.append((event.headers, bytearray(), []))
            elif isinstance(event, PartData):
                found[-1][1].extend(event.data)
            else:
                found[-1][2].append("whole")
    reader.close()
    assert all(ended == ["whole"] for _, _, ended in found)
    return [(headers, bytes(data)) for headers, data, _ in found]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1 << 20])
def test_parts_are_told_whatever_the_pieces(step):
    """Parts with bytes of every kind, one of them empty."""
    parts = [b"one", b"", bytes(range(256)) * 3, b"\r\n--" + BOUNDARY[:-1] + b"\r\n--"]
    assert [data for _, data in read(body_of(*parts), step)] == parts


def test_parts_that_look_like_boundaries_are_kept():
    """Random parts out of pieces of boundaries, random cuts: every byte comes back."""
    chance = random.Random(8)
    fragments = [
        b"\r\n--" + BOUNDARY + b"X",
        b"\r\n--" + BOUNDARY + b"-",
        b"\r\n--b",
        b"\r",
        b"\n",
        b"-",
        b"--",
        b"data",
    ]
    delimiter = re.compile(rb"\r\n--" + re.escape(BOUNDARY) + rb"([ \t\r]|--|\Z)")
    for _ in range(400):
        parts = []
        while len(parts) < 3:
            part = b"".join(chance.choices(fragments, k=chance.randint(0, 6)))
            if delimiter.search(part + b"\r\n--") is None:
                parts.append(part)
        assert [data for _, data in read(body_of(*parts), chance.choice([1, 2, 3, 5, 8, 13, 40]))] == parts


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
@pytest.mark.parametrize("preamble", [b"\r\n", b"This is a message in parts.\r\n--" + BOUNDARY + b"X\r\n", b"\r\n\r\n"])
def test_what_stands_before_and_after_the_parts_is_passed_over(preamble, step):
    """RFC 2046 5.1.1: preamble and epilogue, and white space behind the first boundary."""
    body = body_of(b"one", preamble=preamble, epilogue=b"\r\nThe end.\r\n--" + BOUNDARY + b"\r\n")
    assert [data for _, data in read(body, step)] == [b"one"]
    padded = body.replace(b"--" + BOUNDARY + b"\r\n", b"--" + BOUNDARY + b" \t\r\n", 1)
    assert [data for _, data in read(padded, step)] == [b"one"]


def test_headers_are_told_in_lower_case():
    """Names in any case, values as they are, several headers, and none."""
    head = b"CONTENT-Type:application/dicom; transfer-syntax=1.2\r\nContent-Location:  /a \r\n"
    assert read(body_of(b"one", head=head), 3) == [
        ({"content-type": "application/dicom; transfer-syntax=1.2", "content-location": "/a"}, b"one")
    ]
    assert read(body_of(b"one", head=b"")) == [({}, b"one")]


def test_no_parts_is_no_error_here():
    """The closing boundary alone."""
    assert read(b"--" + BOUNDARY + b"--") == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "boundary does not stand in it"),
        (b"no boundary anywhere", "boundary does not stand in it"),
        (b"x" * (LONGEST_PREAMBLE + 1), "does not stand in the first 64 KiB"),
        (body_of(b"one").replace(b"\r\n", b"\n"), "boundary does not stand in it"),
        (body_of(b"one")[: -len(BOUNDARY) - 4], "ends without its closing boundary"),
        (body_of(b"one")[:-1], "ends without its closing boundary"),
        (body_of(b"one", head=b"X: " + b"y" * LONGEST_HEADER + b"\r\n"), "head of a part cannot be read"),
        (body_of(b"one", head=b"y" * LONGEST_HEADER * 2), "head of a part cannot be read"),
        (body_of(b"one", head=b"X: y\r\n" * (MOST_HEADERS + 1)), "head of a part cannot be read"),
        (body_of(b"one", head=b"no colon\r\n"), "head of a part cannot be read"),
        (body_of(b"one", head=b"Content-Type: a;\r\n folded=b\r\n"), "head of a part cannot be read"),
    ],
)
def test_a_body_that_is_none_has_one_reason(body, reason):
    """Each fault by name, whatever the pieces."""
    for step in (7, 1 << 20):
        with pytest.raises(MalformedBodyError, match=reason):
            read(body, step)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related;Boundary="a b:c";TYPE=application/dicom', b"a b:c"),
        ("multipart/related; boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_boundaries_are_read_from_the_content_type(header, boundary):
    """Quoted or not, in any case."""
    media_type = MediaType.of(header)
    assert (media_type.name, media_type.parameters.get("type", "")) in {
        ("multipart/related", "application/dicom"),
        ("multipart/related", ""),
    }
    assert boundary_of(media_type) == boundary


@pytest.mark.parametrize(
    "parameter", ["", "boundary=", 'boundary=""', "boundary=" + "x" * 71, 'boundary="a "', "boundary=ä"]
)
def test_what_is_no_boundary_is_refused(parameter):
    """Missing, empty, too long, with a space at the end, or not ASCII."""
    with pytest.raises(MalformedBodyError, match="boundary"):
        boundary_of(MediaType.of(f"multipart/related; {parameter}"))
