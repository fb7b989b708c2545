"""Unpacking archives that are damaged or made to do harm: nothing is lost without a word, and no error is unforeseen."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from voxelmill_ingest.findings import ArchiveFormat
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.unpack import ArchiveRefusedError, Bounds, Contents, UnpackJob, unpack
from voxelmill_shared.child import Child, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Unpack = Callable[[bytes, ArchiveFormat], Contents]

FILES = {f"study/{n}.dcm": bytes([n]) * 3000 for n in (1, 2, 3, 4)}
BLOCK = tarfile.BLOCKSIZE


def zip_of(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in FILES.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tar_of() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, body in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpack:
    """Return what unpacks bytes under a limit of 10 MB."""

    def run(body: bytes, kind: ArchiveFormat) -> Contents:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "archive").write_bytes(body)
        (folder / "members").mkdir()
        bounds = Bounds(total_bytes=10_000_000)
        return unpack(UnpackJob(folder / "archive", kind, folder / "members", bounds), lambda _: None)

    return run


def refused(unpacked: Unpack, body: bytes, kind: ArchiveFormat) -> ArchiveRefusedError:
    with pytest.raises(ArchiveRefusedError) as caught:
        unpacked(body, kind)
    return caught.value


def test_a_sound_tar_is_unpacked_to_its_end(unpacked: Unpack) -> None:
    for kind, body in ((ArchiveFormat.TAR, tar_of()), (ArchiveFormat.TAR_GZIP, gzip.compress(tar_of()))):
        contents = unpacked(body, kind)
        assert {one.name: one.path.read_bytes() for one in contents.members} == FILES


@pytest.mark.parametrize("kind", [ArchiveFormat.TAR, ArchiveFormat.TAR_GZIP])
@pytest.mark.parametrize("hurt", ["header", "cut between members", "cut in a header"])
def test_a_tar_whose_later_members_cannot_be_found_is_refused(unpacked: Unpack, kind: ArchiveFormat, hurt: str) -> None:
    """A damaged header is taken for the end by tarfile, which says nothing of what follows."""
    body = bytearray(tar_of())
    second = BLOCK + 6 * BLOCK
    assert body[second:].startswith(b"study/2")
    if hurt == "header":
        body[second + 3] ^= 1
    else:
        del body[second + (100 if hurt == "cut in a header" else 0) :]
    packed = gzip.compress(bytes(body)) if kind is ArchiveFormat.TAR_GZIP else bytes(body)
    assert refused(unpacked, packed, kind).reason is Reason.ARCHIVE_CORRUPT


def test_the_checksum_of_a_packed_tar_is_checked(unpacked: Unpack) -> None:
    """Pixels that were changed on their way are no pixels; the checksum stands after all that tarfile reads."""
    body = bytearray(gzip.compress(tar_of()))
    body[-6] ^= 1
    assert refused(unpacked, bytes(body), ArchiveFormat.TAR_GZIP).reason is Reason.ARCHIVE_CORRUPT


def test_what_follows_the_end_of_a_tar_counts(unpacked: Unpack) -> None:
    body = gzip.compress(tar_of() + bytes(20_000_000))
    assert refused(unpacked, body, ArchiveFormat.TAR_GZIP).reason is Reason.ARCHIVE_TOO_LARGE


def test_a_damaged_bzip2_member_is_refused_alone(unpacked: Unpack) -> None:
    """Its error is one of the operating system by its type."""
    body = bytearray(zip_of(zipfile.ZIP_BZIP2))
    body[body.index(b"BZh9") + 12] ^= 0xFF
    contents = unpacked(bytes(body), ArchiveFormat.ZIP)
    assert [one.name for one in contents.members] == list(FILES)[1:]
    assert [(one.name, one.reason) for one in contents.refused] == [("study/1.dcm", Reason.ARCHIVE_CORRUPT)]


def test_a_member_without_a_name_is_refused(unpacked: Unpack) -> None:
    body = bytearray(zip_of())
    place = body.index(b"PK\x01\x02")
    body[place + 28 : place + 30] = bytes(2)
    with pytest.raises(ArchiveRefusedError):
        unpacked(bytes(body), ArchiveFormat.ZIP)
    body = bytearray(zip_of())
    place = body.index(b"PK\x01\x02")
    body[place + 46] = 0  # a name ends at its first NUL
    contents = unpacked(bytes(body), ArchiveFormat.ZIP)
    assert [one.name for one in contents.members] == list(FILES)[1:]
    assert [one.reason for one in contents.refused] == [Reason.ARCHIVE_UNSAFE_MEMBER]


def test_a_folder_with_content_is_no_folder(unpacked: Unpack) -> None:
    body = zip_of().replace(b"study/1.dcm", b"study/1.dc/")
    assert len(unpacked(body, ArchiveFormat.ZIP).members) == len(FILES)


def test_a_zip_whose_table_lacks_members_is_refused(unpacked: Unpack) -> None:
    """The last record tells how many there are, and where the table begins."""
    body = bytearray(zip_of())
    last = body.index(b"PK\x05\x06")
    for place, value in ((8, b"\5\0\5\0"), (12, bytes(8))):
        hurt = body[: last + place] + value + body[last + place + len(value) :]
        assert refused(unpacked, bytes(hurt), ArchiveFormat.ZIP).reason is Reason.ARCHIVE_CORRUPT


async def test_a_header_that_takes_all_memory_is_refused_and_not_tried_again(tmp_path: Path) -> None:
    """Extended headers are read at once, however long (POSIX.1-2017, pax). The child itself lives on."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 800 << 20
    (tmp_path / "a").write_bytes(gzip.compress(info.tobuf()) + gzip.compress(bytes(32 << 20), 1) * 25)
    (tmp_path / "members").mkdir()
    child = Child("voxelmill_ingest.unpack:unpack", Limits(memory_bytes=600 << 20, seconds=60))
    try:
        with pytest.raises(ArchiveRefusedError) as caught:
            await child.call(UnpackJob(tmp_path / "a", ArchiveFormat.TAR_GZIP, tmp_path / "members"))
    finally:
        await child.close()
    assert caught.value.reason is Reason.ARCHIVE_TOO_LARGE


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_in_a_zip_has_an_answer(unpacked: Unpack, method: int) -> None:
    """What comes out is whole, what does not is named, and both can be shown."""
    dice = random.Random(method)
    sound = zip_of(method)
    for _ in range(150):
        body = bytearray(sound)
        for _ in range(dice.choice([1, 2])):
            body[dice.randrange(len(body))] = dice.randrange(256)
        try:
            contents = unpacked(bytes(body), ArchiveFormat.ZIP)
        except ArchiveRefusedError as error:
            said = [str(error)]
        else:
            said = [one.name + one.detail for one in contents.refused]
            assert all(one.path.read_bytes() in FILES.values() for one in contents.members)
        assert all(one.isprintable() for one in said)
