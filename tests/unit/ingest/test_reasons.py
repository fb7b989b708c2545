"""The catalogue of reasons and its page."""

from __future__ import annotations

import bz2
import lzma
from pathlib import Path

import pytest

from voxelmill_ingest.catalogue import page
from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.inspection import inspect, is_junk
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.unpack import safe_name
from voxelmill_shared.events import ObjectRef

PAGE = Path(__file__).parents[3] / "docs" / "validation.md"


def test_the_page_holds_the_catalogue_as_it_is() -> None:
    """It is made with `python -m voxelmill_ingest.catalogue > docs/validation.md`."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("one", [*Reason, *Caution])
def test_words_are_lower_case_and_explained(one: Reason | Caution) -> None:
    assert one.value == one.value.lower().replace("_", "-")
    assert one.explanation.endswith((".", "…"))
    assert one.advice.endswith(".")
    assert one.source == "" or one.source.startswith(("PS3.", "nifti"))


def test_no_word_is_a_reason_and_a_warning() -> None:
    assert not {one.value for one in Reason} & {one.value for one in Caution}


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        ("a.dcm", b"", Reason.EMPTY_OBJECT),
        ("a.dcm", b"hello", Reason.NOT_DICOM),
        ("readme", b"hello", Reason.OTHER_FILE),
        ("report.PDF", b"%PDF", Reason.OTHER_FILE),
        ("study/.DS_Store", b"hello", Reason.JUNK),
        ("a", b"\x1f\x8bnot really gzip", Reason.NOT_DICOM),
        ("a", bytes(20_000), Reason.NOT_DICOM),
        ("report", b"%PDF-1.7", Reason.OTHER_FILE),
        ("scan", b"\xff\xd8\xff\xe0", Reason.OTHER_FILE),
        ("scan.dcm", b"\xff\xd8\xff\xe0", Reason.NOT_DICOM),
        ("study.7z", b"7z\xbc\xaf\x27\x1c", Reason.ARCHIVE_UNSUPPORTED),
        ("study.rar", b"Rar!\x1a\x07\1\0", Reason.ARCHIVE_UNSUPPORTED),
        ("study.tar.bz2", bz2.compress(b"x"), Reason.ARCHIVE_UNSUPPORTED),
        ("study.tar.xz", lzma.compress(b"x"), Reason.ARCHIVE_UNSUPPORTED),
        ("Letter.DOCX", b"PK\x03\x04", Reason.OTHER_FILE),
    ],
)
def test_what_is_no_image_is_told_by_bytes_and_name(key: str, body: bytes, reason: Reason) -> None:
    reading = inspect(ObjectRef(bucket="inbox", key=key, etag="e", size=len(body)))
    found = None
    try:
        wanted = next(reading)
        reading.send(body[wanted.start : wanted.start + wanted.length])
    except StopIteration as end:
        found = end.value
    assert found is not None
    assert found.reason is reason


def test_junk_is_known_at_any_depth() -> None:
    assert is_junk("__MACOSX/a/._b")
    assert is_junk("a/Thumbs.db")
    assert not is_junk("a/b.dcm")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("a\\b", "a/b"),
        ("../a", None),
        ("a/../../b", None),
        ("/a", None),
        ("C:/a", None),
        ("a\0b", None),
        ("a\nb", None),
        ("", None),
        (".", None),
        ("x" * 300, None),
        ("a/" * 400 + "b", None),
        ("\udcff", None),
    ],
)
def test_names_of_members_are_safe_or_none(name: str, safe: str | None) -> None:
    assert safe_name(name) == safe
