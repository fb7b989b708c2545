"""Series whose instances lie in an inbox, and what index has written of them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from integration.index_kit import NOON, Index, Series
from unit.index.test_headers import dataset, written
from voxelmill_shared.catalog import search
from voxelmill_shared.catalog.scope import EVERYTHING
from voxelmill_shared.catalog.search import SeriesFilter
from voxelmill_shared.database import reading
from voxelmill_shared.events import DocumentRef, Envelope, ObjectRef, SeriesSegmented, Stage
from voxelmill_shared.outcome import Done
from voxelmill_shared.results import Artefact, StageRecord

if TYPE_CHECKING:
    from sqlalchemy import Table

    from voxelmill_shared.catalog import Scope

UIDS = (f"1.2.827.{number}" for number in itertools.count(1000))
SEG = "segmentation/segmentation.dcm"
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass
class StoredSeries(Series):
    """A series whose instances lie in the inbox; `header` is what each of them says beside its UIDs."""

    index: Index | None = None
    prefix: str = ""
    header: dict[str, Any] = field(default_factory=dict)
    references: dict[int, ObjectRef] = field(default_factory=dict)

    async def put(self) -> StoredSeries:
        """Write the instances."""
        assert self.index is not None
        for number in range(1, 2 + self.revision):
            uids = {"SOPInstanceUID": f"{self.uid}.{number}", "StudyInstanceUID": self.study}
            body = written(dataset(**uids, SeriesInstanceUID=self.uid, InstanceNumber=number, **self.header))
            await self.put_bytes(number, body)
        return self

    async def put_bytes(self, number: int, body: bytes) -> None:
        assert self.index is not None
        key = f"{self.prefix}{self.uid}/{number}.dcm"
        stored = await self.index.handler.stores.inbox.write(key, body)
        self.references[number] = ObjectRef(bucket="inbox", key=key, etag=stored.etag, size=stored.size)

    def reference(self, number: int) -> ObjectRef:
        return self.references.get(number) or super().reference(number)

    async def segmented(self, uid: str, **header: Any) -> Envelope:
        """Write a DICOM segmentation, and say that segment is done."""
        files = {SEG: b"no DICOM"} if not uid else {SEG: self.segmentation(uid, **header)}
        for name, body in files.items():
            await self.store.write(self.keys.artefact(name), body)
        artefacts = tuple(
            Artefact(name=name, media_type="application/dicom", size=len(body), sha256=hashlib.sha256(body).hexdigest())
            for name, body in files.items()
        )
        record = StageRecord(
            stage=Stage.SEGMENT,
            service_version="9",
            started=NOON,
            finished=NOON,
            seconds={},
            artefacts=artefacts,
            trace_id=uid,
        )
        stored = await self.store.write(self.keys.stage_record(Stage.SEGMENT), record.to_json())
        document = DocumentRef(key=stored.key, sha256=stored.sha256)
        return self.wrap(SeriesSegmented(**self.names, record=document, artefacts=len(files), plan=self.plan))

    def segmentation(self, uid: str, **header: Any) -> bytes:
        names = {"SeriesInstanceUID": f"{uid}.0", "SOPInstanceUID": uid, "StudyInstanceUID": self.study}
        names |= {"SOPClassUID": SEGMENTATION_STORAGE, "Modality": "SEG", "SeriesNumber": 9001, "NumberOfFrames": 12}
        return written(dataset(**names | header))


async def a_series(index: Index, prefix: str = "", **header: Any) -> StoredSeries:
    series = StoredSeries(index.store, next(UIDS), index=index, prefix=prefix, header=header)
    return await series.put()


async def take(index: Index, *envelopes: Envelope) -> None:
    for envelope in envelopes:
        assert await index.take(envelope) == Done()


async def rows(index: Index, of: Table, **by: str) -> list[Any]:
    async with reading(index.engine) as connection:
        return list(await connection.execute(select(of).filter_by(**by)))


async def find(index: Index, scope: Scope = EVERYTHING, **wanted: Any) -> list[str]:
    async with reading(index.engine) as connection:
        found, total = await search.search_series(connection, scope, SeriesFilter(**wanted))
    assert total == len(found)
    return [one.series_instance_uid for one in found]
