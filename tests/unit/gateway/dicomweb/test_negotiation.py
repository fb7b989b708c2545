"""What a client accepts, as clients write it."""

from __future__ import annotations

import pytest

from voxelmill_gateway.dicomweb.negotiation import frame_type, parse

RLE, JPEG_LS, HTJ2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201"


@pytest.mark.parametrize(
    ("stored", "asked", "given"),
    [
        (RLE, "image/x-dicom-rle", "image/dicom-rle"),
        (JPEG_LS, "image/x-jls", "image/jls"),
        (HTJ2K, "image/jhc", "image/jphc"),
        (HTJ2K, "image/jphc", "image/jphc"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_frames_are_given_as_stored_whatever_a_client_calls_that(stored, asked, given, quote):
    """With the name that the Standard has now; and a client may leave quotation marks out, as OHIF can."""
    octets = f"multipart/related; type={quote}application/octet-stream{quote}; transfer-syntax=1.2.840.10008.1.2.1"
    wish = f"multipart/related; type={quote}{asked}{quote}; transfer-syntax={stored}, {octets}"
    label = frame_type(parse(wish), stored, compressed=True, decodable=True)
    assert label == f"{given}; transfer-syntax={stored}"


def test_octets_of_any_transfer_syntax_are_those_that_are_stored():
    """What OHIF asks for, with quotation marks and without."""
    for wish in (
        'multipart/related; type="application/octet-stream"; transfer-syntax="*"',
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
    ):
        label = frame_type(parse(wish), RLE, compressed=True, decodable=True)
        assert label == f"application/octet-stream; transfer-syntax={RLE}"
