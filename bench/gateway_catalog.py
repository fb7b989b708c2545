"""Ten thousand series for the catalogs of the gateway benchmark: the same tiny instances for every server.

Each series is one CT instance of 16 x 16 pixels with the attributes that people search by. Orthanc is sent the files,
over eight connections, to `POST /instances`. Voxelmill's catalog is filled with the rows that index would write:
the same files are read with index's own reader of headers, and the rows are put in by SQL, thousands at a time; no
object of them is in a store, since searching looks at none.
"""

from __future__ import annotations

import http.client
import io
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import insert

from series_copies import new_uid
from voxelmill_index.headers import read_header
from voxelmill_shared.catalog.tables import HEADERS, INSTANCES, JOBS, OBJECTS, SERIES, STUDIES
from voxelmill_shared.database import open_database, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Table

SERIES_OF_A_STUDY = 4
STUDIES_OF_A_PATIENT = 2
_FAMILIES = ("Adams", "Baker", "Clark", "Davis", "Evans", "Frank", "Ghosh", "Hills", "Irwin", "Jones")
_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """One series: what it is searched by, and its only instance as a file."""

    study: str
    series: str
    instance: str
    patient_id: str
    patient_name: str
    study_date: str
    accession: str
    body: bytes


def entries(count: int) -> list[Entry]:
    """Make the series. The same count gives the same ones."""
    return [_entry(number) for number in range(count)]


def _entry(number: int) -> Entry:
    study_number = number // SERIES_OF_A_STUDY
    patient = study_number // STUDIES_OF_A_PATIENT
    day = date(2015, 1, 1) + timedelta(days=study_number % 3650)
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, new_uid("catalog", "instance", number)
    ds.StudyInstanceUID = new_uid("catalog", "study", study_number)
    ds.SeriesInstanceUID = new_uid("catalog", "series", number)
    ds.PatientID, ds.PatientName = f"P{patient:06d}", f"{_FAMILIES[patient % 10]}{patient}^Test"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "FM"[patient % 2]
    ds.StudyDate, ds.StudyTime = f"{day:%Y%m%d}", "101500"
    ds.AccessionNumber, ds.StudyID = f"A{study_number:06d}", str(study_number)
    ds.StudyDescription, ds.SeriesDescription = "CT chest", f"Series {number % SERIES_OF_A_STUDY}"
    ds.ReferringPhysicianName, ds.Manufacturer, ds.InstitutionName = "", "Voxelmill", "Benchmark"
    ds.Modality, ds.BodyPartExamined = ("CT", "MR")[number % SERIES_OF_A_STUDY == 3], "CHEST"
    ds.SeriesNumber, ds.InstanceNumber = number % SERIES_OF_A_STUDY + 1, 1
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.SamplesPerPixel = 16, 12, 11, 1
    ds.PixelRepresentation, ds.PhotometricInterpretation, ds.PixelData = 0, "MONOCHROME2", bytes(512)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    written = io.BytesIO()
    pydicom.dcmwrite(written, ds, enforce_file_format=True)
    return Entry(
        ds.StudyInstanceUID,
        ds.SeriesInstanceUID,
        ds.SOPInstanceUID,
        ds.PatientID,
        str(ds.PatientName),
        ds.StudyDate,
        ds.AccessionNumber,
        written.getvalue(),
    )


def queries(all_of_them: Sequence[Entry], root: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Return `count` searches of each kind with its name, in random order: the paths that are asked for."""
    chance = random.Random(seed)
    chosen: list[tuple[str, str]] = []
    for _ in range(count):
        one = chance.choice(all_of_them)
        chosen += [
            ("page of studies", f"{root}/studies?limit=50&offset={chance.randrange(20) * 50}"),
            ("patient id", f"{root}/studies?PatientID={one.patient_id}"),
            ("patient name", f"{root}/studies?PatientName={one.patient_name.partition('^')[0]}*"),
            ("accession", f"{root}/studies?AccessionNumber={one.accession}"),
            ("dates", f"{root}/studies?StudyDate={one.study_date}-{one.study_date}&ModalitiesInStudy=CT"),
            ("series of a study", f"{root}/studies/{one.study}/series"),
            ("instances", f"{root}/studies/{one.study}/series/{one.series}/instances"),
        ]
    chance.shuffle(chosen)
    return chosen


def fill_orthanc(all_of_them: Sequence[Entry], port: int) -> None:
    """Send every file."""
    left = iter(all_of_them)

    def send(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for one in left:
            connection.request("POST", "/instances", body=one.body)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"Orthanc does not take an instance: {answer.status} {text[:200]!r}")
        connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(8)))


async def fill_catalog(all_of_them: Sequence[Entry], database_url: str) -> None:
    """Put in the rows that index would write; its tables are there already."""
    engine = open_database(database_url)
    now = datetime.now(UTC)
    source = {"event_time": now, "event_id": "benchmark"}
    studies = dict.fromkeys(one.study for one in all_of_them)
    async with transaction(engine) as connection:
        for table, rows in (
            (STUDIES, ({"study_instance_uid": uid, "first_seen": now} for uid in studies)),
            *((table, map(make, all_of_them)) for table, make in _rows(now, source).items()),
        ):
            for some in _some(rows):
                await connection.execute(insert(table), some)
    await engine.dispose()


def _rows(now: datetime, source: dict[str, Any]) -> dict[Table, Any]:
    def address(one: Entry) -> str:
        return f"inbox/{one.instance}.dcm"

    def header(one: Entry) -> dict[str, Any]:
        found = read_header(one.body)
        if found is None:
            raise SystemExit("index cannot read what the benchmark has written")
        return {
            **found.columns,
            "study_json": found.study_json,
            "series_json": found.series_json,
            "series_instance_uid": one.series,
            "study_instance_uid": one.study,
            "project": "default",
            "derived_from_job": "",
            **source,
        }

    return {
        SERIES: lambda one: {
            "series_instance_uid": one.series,
            "study_instance_uid": one.study,
            "modality": "CT",
            "known_from": 1,
            "project": "default",
            "first_seen": now,
        },
        INSTANCES: lambda one: {
            "series_instance_uid": one.series,
            "sop_instance_uid": one.instance,
            "sop_class_uid": CTImageStorage,
            "transfer_syntax_uid": ExplicitVRLittleEndian,
            "instance_number": 1,
            "rows": 16,
            "columns": 16,
            "frames": 1,
            "object_address": address(one),
            "size": len(one.body),
            **source,
        },
        OBJECTS: lambda one: {
            "address": address(one),
            "etag": "0" * 32,
            "size": len(one.body),
            "kind": "dicom",
            "status": "validated",
            "reason": "",
            "detail": "",
            "study_instance_uid": one.study,
            "series_instance_uid": one.series,
            "sop_instance_uid": one.instance,
            "modality": "CT",
            "members": 0,
            "warnings": [],
            **source,
        },
        JOBS: lambda one: {
            "series_instance_uid": one.series,
            "revision": 1,
            "job_id": one.series[-32:],
            "study_instance_uid": one.study,
            "status": "complete",
            "validated_at": now,
            "modality": "CT",
            "instances": 1,
            "evidence": "upload",
            "plan": {},
            "manifest_key": "",
            "manifest_sha256": "",
            "trace_id": "",
            "indexed_at": now,
            "receipt_key": "",
            "receipt_sha256": "",
        },
        HEADERS: header,
    }


def _some(rows: Any) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
