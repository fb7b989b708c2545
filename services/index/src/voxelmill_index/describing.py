"""Reading what searches need and events do not carry: whose a series is, and what its first instance's header says.

A header that cannot be read costs its series the row that people search by, and nothing else: a line in the log says
so, and the event is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from voxelmill_shared.errors import ObjectMissingError, UnsafeKeyError
from voxelmill_shared.events import ObjectKind, SeriesSegmented, SeriesValidated
from voxelmill_shared.projects import project_of
from voxelmill_shared.results import ResultKeys, SeriesManifest
from voxelmill_shared.stage import read_document
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from voxelmill_index.headers import Header
    from voxelmill_shared.events import Event
    from voxelmill_shared.results import Artefact, ManifestInstance, StageRecord
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.stores import Stores

log = structlog.get_logger("voxelmill")

SUFFIX = ".dcm"
"""What the names of the DICOM objects among the results end in."""


@dataclass(frozen=True, slots=True)
class DerivedObject:
    """A DICOM object among the results, and its header."""

    artefact: Artefact
    key: str
    header: Header


@dataclass(frozen=True, slots=True)
class Description:
    """What was read on behalf of an event.

    Attributes
    ----------
    project
        Whose the series is; empty where that could not be read.
    header
        Of the first instance of a series that is complete, if it could be read.
    derived
        The DICOM objects that a stage has made.
    """

    project: str = ""
    header: Header | None = None
    derived: tuple[DerivedObject, ...] = ()


@dataclass(frozen=True, slots=True)
class Describe:
    """Reads manifests and the heads of objects, one ranged read for each series."""

    stores: Stores

    async def __call__(self, event: Event, record: StageRecord | None) -> Description:
        """Return what there is to know for an event; most events need nothing.

        Raises
        ------
        TransientError
            If a store does not answer.
        """
        match event:
            case SeriesValidated():
                return await self._series(event)
            case SeriesSegmented() if record is not None:
                return await self._results(event, record)
            case _:
                return Description()

    async def _series(self, event: SeriesValidated) -> Description:
        try:
            manifest = await read_document(self.stores.results, event.manifest, SeriesManifest)
        except (ObjectMissingError, UnsupportedSeriesError):
            return Description()  # another one has been written since; its own event has the rest
        first = manifest.instances[0]
        header = None
        if manifest.kind is ObjectKind.DICOM:
            header = await self._header(event, first)
        return Description(project_of(first.object.key), header)

    async def _header(self, event: SeriesValidated, first: ManifestInstance) -> Header | None:
        try:
            head = await _head(self.stores.of(first.object), first.object.key, first.object.etag)
        except (ObjectMissingError, UnsafeKeyError):
            head = b""
        header = _read(head)
        if header is None:
            log.warning("series.header-unreadable", series_instance_uid=event.series_instance_uid, job_id=event.job_id)
        return header

    async def _results(self, event: SeriesSegmented, record: StageRecord) -> Description:
        keys = ResultKeys.of(event)
        derived: list[DerivedObject] = []
        for artefact in record.artefacts:
            if not artefact.name.endswith(SUFFIX):
                continue
            key = keys.artefact(artefact.name)
            try:
                header = _read(await _head(self.stores.results, key))
            except ObjectMissingError:
                header = None
            if header is None or not header.instance.sop_instance_uid or not header.instance.series_instance_uid:
                log.warning("result.header-unreadable", job_id=event.job_id, artefact=artefact.name)
                continue
            derived.append(DerivedObject(artefact, key, header))
        return Description(await self._project(keys) if derived else "", derived=tuple(derived))

    async def _project(self, keys: ResultKeys) -> str:
        """Read whose a job is: whichever manifest stands now, a series belongs to one project."""
        try:
            body = await self.stores.results.read(keys.manifest)
        except ObjectMissingError:
            return ""
        return project_of(SeriesManifest.model_validate_json(body).instances[0].object.key)


async def _head(store: ObjectStore, key: str, etag: str | None = None) -> bytes:
    """Read the beginning of an object; nothing of one that has been replaced since."""
    from voxelmill_index.headers import HEAD_BYTES  # noqa: PLC0415 - brings pydicom: only where there is DICOM

    stat, head = await store.read_head(key, HEAD_BYTES)
    return head if etag in {None, stat.etag} else b""


def _read(head: bytes) -> Header | None:
    from voxelmill_index.headers import read_header  # noqa: PLC0415 - brings pydicom: only where there is DICOM

    return read_header(head)
