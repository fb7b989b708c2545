"""What mutants of real files once did to ingest: an answer in one line now."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from unit.ingest.dicom_objects import dataset, encoded, judge
from voxelmill_ingest.findings import ArchiveFormat, Instance, Refusal
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.unpack import ArchiveRefusedError, UnpackJob, unpack

if TYPE_CHECKING:
    from pathlib import Path


def chained(kind: bytes, text: bytes, times: int) -> bytes:
    """Encode a header that is about the next one, which is about the next one, and so on; then a member."""
    info = tarfile.TarInfo("n")
    info.type, info.size = kind, len(text)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a.dcm"))
    return (info.tobuf(tarfile.GNU_FORMAT) + text.ljust(tarfile.BLOCKSIZE, b"\0")) * times + target.getvalue()


@pytest.mark.parametrize(("kind", "text"), [(b"L", b"x" * 100), (b"K", b"x" * 100), (b"x", b"20 comment=x2345678\n")])
def test_a_tar_of_headers_about_headers_is_damaged(tmp_path: Path, kind: bytes, text: bytes) -> None:
    """The library reads each in a call of its own, and Python allows no more than a thousand."""
    (tmp_path / "members").mkdir()
    job = UnpackJob(tmp_path / "a.tar", ArchiveFormat.TAR, tmp_path / "members")
    job.archive.write_bytes(chained(kind, text, 3_000))
    with pytest.raises(ArchiveRefusedError) as error:
        unpack(job, lambda _: None)
    assert error.value.reason is Reason.ARCHIVE_CORRUPT
    assert str(error.value).isprintable()
    job.archive.write_bytes(chained(kind, text, 2))
    assert len(unpack(job, lambda _: None).members) == 1


@pytest.mark.parametrize(
    ("keyword", "tag", "code"),
    [
        ("PixelSpacing", b"\x28\0\x30\0DS", "invalid-pixel-spacing"),
        ("ImagePositionPatient", b"\x20\0\x32\0DS", "invalid-position"),
    ],
)
def test_digits_that_underscores_group_are_no_number(keyword: str, tag: bytes, code: str) -> None:
    """Python's float takes 1_5 for 15; a decimal string has no underscore (PS3.5 6.2)."""
    sound = [1.5] * (2 if keyword == "PixelSpacing" else 3)
    body = encoded(dataset(**{keyword: sound}))
    place = body.index(tag)
    found = judge(body[:place] + body[place : place + 12].replace(b"1.5", b"1_5") + body[place + 12 :])
    assert isinstance(found, Instance)
    assert code in {warning.partition(":")[0] for warning in found.warnings}
    assert code not in {warning.partition(":")[0] for warning in judge(body).warnings}


def test_a_refusal_that_names_another_object_is_one_line() -> None:
    r"""Keys hold whatever they like: `a\nb.dcm` once made two lines of a conflict."""
    refusal = Refusal(reason=Reason.CONFLICTING_INSTANCE, detail="inbox/a\nb\x1b[2J.dcm is the same instance")
    assert refusal.detail == "inbox/a\\nb\\x1b[2J.dcm is the same instance"


@pytest.mark.parametrize("name", [".DS_Store", "../evil.dcm"])
def test_a_bomb_in_a_member_that_is_not_taken_is_refused_before_it_is_inflated(tmp_path: Path, name: str) -> None:
    """To come to the next member of a tar.gz, this one is inflated all the same: 3 GB of zeros from 3 MB."""
    (tmp_path / "members").mkdir()
    info = tarfile.TarInfo(name)
    info.size = 300 << 20
    job = UnpackJob(tmp_path / "a.tar.gz", ArchiveFormat.TAR_GZIP, tmp_path / "members")
    job.archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10 << 20)))
    with pytest.raises(ArchiveRefusedError) as error:
        unpack(job, lambda _: None)
    assert error.value.reason is Reason.ARCHIVE_TOO_LARGE
