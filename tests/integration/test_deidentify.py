"""De-identification in the running service: nothing that identifies leaves the incoming bucket."""

from __future__ import annotations

import io
import shutil
import zipfile
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from e2e.command import voxelmill
from integration.identifying import Identifying, collect, elements, read_all, values
from integration.ingest_kit import Clock, Ingest, of
from integration.test_ingest_service import listening, parts_of, publish, references_in, running, until
from unit.ingest.hostile_dicom import SURNAME, everything, hostile_archive
from voxelmill_ingest.deidentify.copies import build_deidentifier
from voxelmill_ingest.deidentify.errors import DeidentificationKeyError
from voxelmill_ingest.deidentify.keys import ProjectKeys
from voxelmill_ingest.deidentify.mapping import Mapping
from voxelmill_ingest.deidentify.profile import Option
from voxelmill_ingest.settings import IngestSettings
from voxelmill_shared.child import Limits
from voxelmill_shared.database import open_database
from voxelmill_shared.events import (
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    SeriesValidated,
    UploadCompleted,
)
from voxelmill_shared.parts import Parts, Scratch
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from voxelmill_shared.events import Event

KEY = "a key of 32 characters, or longer"


@pytest.fixture(scope="module")
def identifying(data: Path) -> Identifying:
    """Everything of that kind in all of the test data."""
    return collect(data)


@pytest.fixture
def neutral(data: Path, tmp_path: Path) -> Path:
    """All of the test data under names that say nothing: what stands in the inbox's own keys stays there."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number, path in enumerate(sorted(path for path in data.rglob("*") if path.is_file())):
        shutil.copyfile(path, inbox / f"object-{number:04d}{''.join(path.suffixes[-2:]) if 'nii' in path.name else ''}")
    return inbox


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
async def test_nothing_identifying_is_written_logged_or_told(
    neutral: Path, tmp_path: Path, identifying: Identifying, capfd: pytest.CaptureFixture[str]
) -> None:
    """All real files go through the service, with every option; then all that it wrote is searched."""
    assert len(identifying.texts) > 100
    assert len(identifying.uids) > 500
    transport = open_transport(f"embedded:{tmp_path}/broker.db")
    parts = replace(parts_of(tmp_path, transport, neutral), limits=Limits(4 << 30, 240))
    settings = IngestSettings(
        scratch=tmp_path / "scratch",
        upload_seconds=300,
        ingest_deidentify="basic+dates+descriptors+device",
        ingest_deidentify_key=KEY,
    )
    references = await references_in(parts.stores.inbox)
    async with listening(transport) as heard, running(parts, settings):
        await publish(
            transport,
            UploadCompleted(upload_id="all", objects=len(references)),
            *(ObjectUploaded(object=one, found_by="command", upload_id="all") for one in references),
        )
        await until(
            lambda: len(heard.of(ObjectValidated)) + len(heard.of(ObjectRejected)) >= len(references), "not all settled"
        )
        series = {event.series_instance_uid for event in heard.of(ObjectValidated)}
        await until(lambda: len(heard.of(SeriesValidated)) >= len(series), "not every series was completed")
    assert {event.evidence for event in heard.of(SeriesValidated)} == {"upload"}
    assert {event.object.bucket for event in heard.of(ObjectValidated)} == {"work"}
    reasons = {event.reason for event in heard.of(ObjectRejected)}
    assert {"burned-in-text-risk", "not-an-image", "not-deidentifiable"} <= reasons
    written = {str(path.relative_to(tmp_path)): body for path, body in read_all(tmp_path, but=neutral)}
    assert len([name for name in written if name.startswith("work/deidentified/")]) > 300
    assert {"ledger.db", "broker.db"} <= written.keys()
    written["the log"] = "".join(capfd.readouterr()).encode()
    written["the events"] = "".join(event.model_dump_json() for event in heard.events).encode()
    leaks = {name: leaked for name, body in written.items() if (leaked := identifying.found_in(body))}
    assert set().union(*leaks.values()) == set(), leaks
    await _check_the_way_back(tmp_path, neutral, heard.of(ObjectValidated))


async def _check_the_way_back(tmp_path: Path, inbox: Path, events: list[ObjectValidated]) -> None:
    """With the key each copy leads to its original, and has none of its dates."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    mapping = Mapping(engine, ProjectKeys.derive(KEY, "default"), lambda: datetime.now(UTC))
    compared = 0
    for event in events[::7]:
        if event.kind != "dicom":
            continue
        (one,) = await mapping.disclose(event.object.key, "test")
        assert one.kind == "object"
        before = pydicom.dcmread(
            inbox / one.original["address"].removeprefix("inbox/"), force=True, stop_before_pixels=True
        )
        after = pydicom.dcmread(tmp_path / "work" / event.object.key, stop_before_pixels=True)
        dates = [
            {one[:8] for e in elements(d) if e.VR in {"DA", "DT"} for one in values(e) if one} for d in (before, after)
        ]
        assert not dates[0] & dates[1] - {"19000101"}
        (patient,) = await mapping.disclose(str(after.PatientID), "test")
        assert patient.original["shift_days"] < 0
        if before.get("SOPInstanceUID"):
            (uid,) = await mapping.disclose(str(after.SOPInstanceUID), "test")
            assert uid.original == {"uid": before.SOPInstanceUID}
        compared += 1
    assert compared > 40
    await engine.dispose()


@pytest.fixture
async def ingest(tmp_path: Path) -> AsyncIterator[Ingest]:
    service = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock()).open()
    parts = Parts(
        service.transport, service.stores, service.database, Scratch(tmp_path / "scratch"), Limits(4 << 30, 240)
    )
    deidentify = build_deidentifier(parts, service.engine, KEY, "project", frozenset(Option), service.clock)
    unpack = replace(service.ingest_object.unpack, deidentify=deidentify)
    service.ingest_object = replace(service.ingest_object, deidentify=deidentify, unpack=unpack)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(service.close)
        await stack.enter_async_context(deidentify.children)
        yield service


@pytest.fixture
def slices(data: Path) -> dict[str, bytes]:
    folder = data / "geometry" / "gap_ge_4slices"
    return {f"Jane Doe/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())[:3]}


def taken(events: list[Event]) -> list[ObjectValidated]:
    return [event for event in of(ObjectValidated, events) if event.kind == "dicom"]


@pytest.mark.data
async def test_an_original_is_replaced_by_its_copy(ingest: Ingest, slices: dict[str, bytes]) -> None:
    published = await ingest.upload(slices, "upload-1")
    assert {event.object.bucket for event in taken(published)} == {"work"}
    statuses = await ingest.statuses()
    assert {statuses[key] for key in slices} == {"deidentified"}
    (event,) = await ingest.completed()
    manifest = await ingest.manifest(event)
    assert event.instances == 3
    assert event.evidence == "upload"
    assert all(one.object.key.startswith("deidentified/") for one in manifest.instances)
    assert await ingest.upload(slices, "upload-1") == published, "announced again, the same events go out"
    assert await ingest.completed() == [event]


@pytest.mark.data
async def test_a_copy_stays_in_the_project_of_its_original(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """Of a file and of an archive's member; and it is known for a copy when it is announced again."""
    (name, body), *others = slices.items()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for other, content in others:
            archive.writestr(other, content)
    sent = {f"projects/lungs/{name}": body, "projects/lungs/a.zip": buffer.getvalue()}
    published = await ingest.upload(sent, "upload-1")
    keys = [event.object.key for event in taken(published)]
    assert len(keys) == 3
    assert all(key.startswith("projects/lungs/deidentified/") for key in keys)
    stat = await ingest.stores.work.head(keys[0])
    copy = ObjectRef(bucket="work", key=keys[0], etag=stat.etag, size=stat.size)
    (again,) = taken(await ingest.handle(ObjectUploaded(object=copy, found_by="reconciler")))
    assert again.object == copy


@pytest.mark.data
async def test_an_archive_leaves_only_copies_of_its_members(ingest: Ingest, slices: dict[str, bytes]) -> None:
    """No member's name is written anywhere, and none of its bytes but those of its copy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in {**slices, "Jane Doe/report.pdf": b"%PDF Jane Doe", "../Jane Doe": b"x"}.items():
            archive.writestr(name, body)
    published = await ingest.upload({"a.zip": buffer.getvalue()}, "upload-1")
    assert sorted(event.reason for event in of(ObjectRejected, published)) == ["archive-unsafe-member", "other-file"]
    assert len(taken(published)) == 3
    (event,) = await ingest.completed()
    assert (event.instances, event.evidence) == (3, "archive")
    assert "Jane" not in "".join(one.model_dump_json() for one in published)
    assert not [path for path in (ingest.folder / "work").rglob("*") if "Jane" in path.name]
    assert not (ingest.folder / "work" / "archives").exists()
    assert b"Jane" not in (ingest.folder / "ledger.db").read_bytes()


@pytest.mark.data
async def test_an_original_that_is_replaced_by_a_risky_one_takes_its_copy_with_it(
    ingest: Ingest, slices: dict[str, bytes]
) -> None:
    """What was taken of the key before is no longer what lies there."""
    await ingest.upload(slices)
    await ingest.completed()
    key, body = next(iter(slices.items()))
    dataset = pydicom.dcmread(io.BytesIO(body))
    dataset.BurnedInAnnotation = "YES"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    published = await ingest.upload({key: buffer.getvalue()})
    refused = of(ObjectRejected, published)
    assert {(event.reason, event.severity) for event in refused} == {("burned-in-text-risk", "skip")}
    ingest.clock.wait(60)
    (event,) = await ingest.completed()
    assert event.instances == 2
    assert len(list((ingest.folder / "work" / "deidentified").iterdir())) == 2


@pytest.mark.data
@pytest.mark.parametrize("successor", ["nifti", "archive"])
async def test_an_original_that_is_replaced_by_another_kind_of_object_takes_its_copy_with_it(
    ingest: Ingest, slices: dict[str, bytes], successor: str
) -> None:
    """A volume has its copy under another suffix, an archive has none: the old copy must not stand for either."""
    await ingest.upload(slices)
    await ingest.completed()
    before = {path.name for path in (ingest.folder / "work" / "deidentified").iterdir()}
    buffer = io.BytesIO()
    if successor == "nifti":
        buffer.write(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    else:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("readme.txt", "nothing")
    await ingest.upload({next(iter(slices)): buffer.getvalue()})
    after = {path.name for path in (ingest.folder / "work" / "deidentified").iterdir() if path.is_file()}
    assert len(before - after) == 1
    ingest.clock.wait(60)
    instances = [event.instances for event in await ingest.completed() if event.modality]
    assert instances == [2]


async def test_another_key_is_refused_and_another_project_begins_anew(ingest: Ingest) -> None:
    def mapping(key: str, project: str) -> Mapping:
        return Mapping(ingest.engine, ProjectKeys.derive(key, project), ingest.clock)

    await mapping(KEY, "one").check_key()
    await mapping(KEY, "one").check_key()
    with pytest.raises(
        DeidentificationKeyError, match=r"^VOXELMILL_INGEST_DEIDENTIFY_KEY: not the key .*'one'.*; set"
    ) as e:
        await mapping(KEY + "!", "one").check_key()
    assert "\n" not in str(e.value)
    await mapping(KEY + "!", "two").check_key()


@pytest.mark.data
def test_a_whole_run_writes_nothing_that_identifies(data: Path, tmp_path: Path, identifying: Identifying) -> None:
    """Pictures, segmentation, meshes, receipt, catalogue and output: from a real series, by the command."""
    source = tmp_path / "series"
    shutil.copytree(data / "geometry" / "gap_ge_4slices", source)
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(source / f"{number}.dcm")
    hostile_archive(source / "more.zip", tmp_path)
    settings: dict[str, Any] = {
        "VOXELMILL_INGEST_DEIDENTIFY": "basic+dates+descriptors+device",
        "VOXELMILL_INGEST_DEIDENTIFY_KEY": KEY,
    }
    ended = voxelmill("run", source, "--output", tmp_path / "out", "--keep-local", "--json", **settings)
    written = {str(path): body for path, body in read_all(tmp_path / "out")}
    written["the output"] = (ended.out + ended.err).encode()
    receipts = [name for name in written if name.endswith("receipt.json")]
    assert len(receipts) == 2 * 3, ended.err
    assert [name for name, body in everything(tmp_path / "out") if SURNAME.lower().encode() in body.lower()] == []
    assert {name: leaked for name, body in written.items() if (leaked := identifying.found_in(body))} == {}
    again = voxelmill(
        "run",
        source,
        "--output",
        tmp_path / "out",
        "--json",
        **settings | {"VOXELMILL_INGEST_DEIDENTIFY_KEY": KEY + "!"},
    )
    assert again.code == 2
    assert again.err.count("\n") == 1
    assert "VOXELMILL_INGEST_DEIDENTIFY_KEY: not the key" in again.err
