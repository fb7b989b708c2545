"""Puts DICOM objects into a gateway's inbox and catalog, as ingest and index would."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
from pydicom.uid import generate_uid
from sqlalchemy import insert, select

from unit.shared.imaging_files import image
from voxelmill_index.headers import read_header
from voxelmill_shared.catalog.tables import DERIVED, HEADERS, INSTANCES, OBJECTS, SERIES
from voxelmill_shared.database import transaction
from voxelmill_shared.projects import project_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SOURCE = {"event_time": NOON, "event_id": "event"}


def encoded(dataset):
    """Return a data set as the bytes of a file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def ct(study="1.2.3", series="1.2.3.4", number=1, size=16, **elements):
    """Return a small CT slice of these UIDs whose pixels tell its number."""
    stored = (np.arange(size * size, dtype=np.int16).reshape(size, size) + 1000 * number).astype(np.int16)
    usual = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "InstanceNumber": number,
        "PatientName": "Phantom^Chest",
        "PatientID": "P-1",
        "StudyDate": "20260102",
        "StudyTime": "101500",
        "AccessionNumber": "A1",
        "SeriesNumber": int(series.rpartition(".")[2]),
        "SeriesDescription": "Axial",
        "ImagePositionPatient": [0, 0, 2.0 * number],
    }
    return image(stored, **usual | elements)


async def catalogue(gateway, body, key="", *, derived_from=""):
    """Store a DICOM object and write its rows; return its data set's UIDs: study, series, instance."""
    body = body if isinstance(body, bytes) else encoded(body)
    dataset = pydicom.dcmread(BytesIO(body), stop_before_pixels=True, force=True)
    study, series, sop = (str(dataset.get(f"{of}InstanceUID") or generate_uid()) for of in ("Study", "Series", "SOP"))
    key = key or f"{sop}.dcm"
    store = gateway.stores.results if derived_from else gateway.stores.inbox
    written = await store.write(key, body)
    header = read_header(body[: 256 << 10])
    instance = {
        "series_instance_uid": series,
        "sop_instance_uid": sop,
        "sop_class_uid": str(dataset.get("SOPClassUID", "")),
        "transfer_syntax_uid": str(dataset.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")),
        "instance_number": dataset.get("InstanceNumber"),
        "rows": dataset.get("Rows") or 0,
        "columns": dataset.get("Columns") or 0,
        "frames": int(dataset.get("NumberOfFrames") or 1),
        "size": len(body),
        **SOURCE,
    }
    project = project_of(key)
    of = {"study_instance_uid": study, "series_instance_uid": series, "project": project}
    async with transaction(gateway.engine) as connection:
        known = select(HEADERS).where(HEADERS.c.series_instance_uid == series)
        if (await connection.execute(known)).first() is None:
            texts = {column.name: "" for column in HEADERS.c if not column.nullable} | header.columns
            texts |= {"study_json": header.study_json, "series_json": header.series_json}
            await connection.execute(insert(HEADERS).values(**texts | of | SOURCE | {"derived_from_job": derived_from}))
            if not derived_from:
                row = of | {"modality": str(dataset.get("Modality", "")), "known_from": 1, "first_seen": NOON}
                await connection.execute(insert(SERIES).values(**row))
        if derived_from:
            of_series = {"of_series_instance_uid": "1.2", "revision": 1, "job_id": derived_from}
            await connection.execute(insert(DERIVED).values(**instance, result_key=key, **of_series))
            return study, series, sop
        address = f"{store.bucket}/{key}"
        await connection.execute(insert(INSTANCES).values(**instance, object_address=address))
        await connection.execute(
            insert(OBJECTS).values(
                **of, **SOURCE, sop_instance_uid=sop, address=address, etag=written.etag, size=len(body),
                kind="dicom", status="validated", reason="", detail="", modality="", members=0, warnings=[],
            )
        )  # fmt: skip
    return study, series, sop
