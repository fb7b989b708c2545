"""Archives: unpacked within bounds in a child process, then ingested member by member."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from integration.ingest_kit import Clock, Ingest, of
from voxelmill_ingest.settlement import ObjectChangedError
from voxelmill_ingest.unpack import Bounds
from voxelmill_shared.events import Evidence, ObjectKind, ObjectRejected, ObjectUploaded, ObjectValidated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_shared.events import Event


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[Ingest]:
    bounds = Bounds(members=50, total_bytes=40 << 20)
    service = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock(), bounds=bounds).open()
    yield service
    await service.close()


@pytest.fixture
def slices(data: Path) -> dict[str, bytes]:
    """Return three slices of one series."""
    folder = data / "geometry" / "gap_ge_4slices"
    return {f"study/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())[:3]}


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refusals(events: list[Event]) -> dict[str, str]:
    return {event.object.key: event.reason for event in of(ObjectRejected, events)}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
async def test_the_end_of_an_archive_completes_its_series(ingest: Ingest, slices: dict[str, bytes], kind: str) -> None:
    body = {"zip": zip_of, "tar": tar_of, "tar.gz": lambda files: gzip.compress(tar_of(files))}[kind](slices)
    published = await ingest.upload({"no-telling-name": body}, "upload-1")
    archives = [event for event in of(ObjectValidated, published) if event.kind is ObjectKind.ARCHIVE]
    assert [event.members for event in archives] == [3]
    assert {event.object.bucket for event in of(ObjectUploaded, published)} == {"work"}
    assert {event.upload_id for event in of(ObjectUploaded, published)} != {"upload-1"}
    (event,) = await ingest.completed()
    assert (event.instances, event.evidence) == (3, Evidence.ARCHIVE)


async def test_an_archive_that_is_announced_again_is_not_unpacked_again(
    ingest: Ingest, slices: dict[str, bytes]
) -> None:
    body = zip_of(slices)
    first = await ingest.upload({"a.zip": body}, "upload-1")
    before = await ingest.completed()
    written = {stat.key: stat.modified async for stat in ingest.stores.work.list()}
    assert await ingest.upload({"a.zip": body}, "upload-1") == first
    assert await ingest.completed() == before
    assert {stat.key: stat.modified async for stat in ingest.stores.work.list()} == written


async def test_members_that_leave_their_folder_are_refused_and_the_others_are_taken(
    ingest: Ingest, slices: dict[str, bytes]
) -> None:
    evil = {"../../outside": b"x", "/etc/outside": b"x", "C:\\outside": b"x", "a\\..\\..\\outside": b"x"}
    published = await ingest.upload({"a.zip": zip_of({**evil, **slices})})
    assert refusals(published) == {f"a.zip!{name}": "archive-unsafe-member" for name in evil}
    assert [event.instances for event in await ingest.completed()] == [3]
    assert not [path for path in ingest.folder.rglob("*") if path.name == "outside"]


async def test_links_and_devices_in_a_tar_are_refused(ingest: Ingest, slices: dict[str, bytes]) -> None:
    special_members = [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "/etc/passwd"),
        special("null", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ]
    published = await ingest.upload({"a.tar": tar_of(slices, *special_members)})
    assert refusals(published) == {f"a.tar!{info.name}": "archive-unsafe-member" for info in special_members}
    assert [event.instances for event in await ingest.completed()] == [3]


async def test_what_operating_systems_leave_behind_is_skipped(ingest: Ingest, slices: dict[str, bytes]) -> None:
    junk = {"__MACOSX/study/._1": b"x", "study/.DS_Store": b"x", "study/Thumbs.db": b"x"}
    published = await ingest.upload({"a.zip": zip_of(junk | slices)})
    assert set(refusals(published).values()) == {"junk"}
    assert {event.severity for event in of(ObjectRejected, published)} == {"skip"}
    assert [event.instances for event in await ingest.completed()] == [3]


async def test_an_archive_that_unpacks_to_too_much_is_refused_as_a_whole(ingest: Ingest) -> None:
    bomb = zip_of({f"{number}": bytes(9 << 20) for number in range(5)})
    assert len(bomb) < 100_000
    published = await ingest.upload({"a.zip": bomb, "b.tgz": gzip.compress(tar_of({"x": bytes(41 << 20)}))})
    assert refusals(published) == {"a.zip": "archive-too-large", "b.tgz": "archive-too-large"}
    assert not list((ingest.folder / "work").rglob("*"))
    assert not list((ingest.folder / "scratch").iterdir())


async def test_an_archive_of_too_many_members_is_refused_as_a_whole(ingest: Ingest) -> None:
    published = await ingest.upload({"a.zip": zip_of({f"{number}": b"" for number in range(51)})})
    assert refusals(published) == {"a.zip": "archive-too-large"}


async def test_an_archive_in_an_archive_is_refused(ingest: Ingest, slices: dict[str, bytes]) -> None:
    published = await ingest.upload({"a.zip": zip_of({"inner.zip": zip_of(slices), **slices})})
    ((key, reason),) = refusals(published).items()
    assert key.endswith("inner.zip")
    assert reason == "archive-nested-too-deep"
    assert [event.instances for event in await ingest.completed()] == [3]


async def test_a_member_that_needs_a_password_is_refused(ingest: Ingest) -> None:
    # zipfile cannot encrypt, so the flag of the local and of the central header is set by hand (APPNOTE 4.4.4).
    body = bytearray(zip_of({"secret": b"x" * 40}))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    assert refusals(await ingest.upload({"a.zip": bytes(body)})) == {"a.zip!secret": "archive-encrypted"}


async def test_a_damaged_archive_is_refused(ingest: Ingest, slices: dict[str, bytes]) -> None:
    files = {
        "cut.zip": zip_of(slices)[:-30],
        "cut.tar": tar_of(slices)[:100_000],
        "cut.tar.gz": gzip.compress(tar_of(slices))[:-2000],
    }
    published = await ingest.upload(files)
    assert refusals(published) == dict.fromkeys(files, "archive-corrupt")


async def test_one_damaged_member_of_a_zip_is_refused_alone(ingest: Ingest, slices: dict[str, bytes]) -> None:
    body = bytearray(zip_of(slices))
    body[2000] ^= 0xFF
    (key,) = refusals(published := await ingest.upload({"a.zip": bytes(body)}))
    assert key == f"a.zip!{next(iter(slices))}"
    assert [event.reason for event in of(ObjectRejected, published)] == ["archive-corrupt"]
    assert [event.instances for event in await ingest.completed()] == [2]


@pytest.mark.parametrize("late", [False, True], ids=["before-the-child-read-it", "after"])
async def test_an_archive_that_is_replaced_while_it_is_unpacked_is_looked_at_again(
    ingest: Ingest, slices: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """The child reads the user's own file: what it finds may not be filed under the content that was there before."""
    call = ingest.child.call
    first, second = zip_of(dict([*slices.items()][:1])), zip_of(slices)

    async def replaced(job: object) -> object:
        monkeypatch.undo()
        contents = await call(job) if late else None
        await ingest.put("a.zip", second)
        return contents or await call(job)

    monkeypatch.setattr(ingest.child, "call", replaced)
    reference = await ingest.put("a.zip", first)
    with pytest.raises(ObjectChangedError):
        await ingest.ingest_object(ObjectUploaded(object=reference, found_by="command"))
    assert not list((ingest.folder / "work").rglob("*.json"))
    published = await ingest.handle(ObjectUploaded(object=reference, found_by="command"))
    assert [event.members for event in of(ObjectValidated, published) if event.kind == ObjectKind.ARCHIVE] == [3]
