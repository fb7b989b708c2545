"""What thumbnail, segment and mesh have in common: fetch the inputs, keep the results, write the record last."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import structlog
from pydantic import BaseModel, ValidationError

from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectChangedError, ObjectMissingError
from voxelmill_shared.events import DocumentRef, Stage, cause
from voxelmill_shared.results import Artefact, SeriesManifest, StageRecord
from voxelmill_shared.version import __version__
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from voxelmill_shared.events import ObjectRef
    from voxelmill_shared.results import ManifestInstance, ResultKeys
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.stores import Stores
    from voxelmill_shared.work import OutputFile, WorkResult

log = structlog.get_logger("voxelmill")
DocumentT = TypeVar("DocumentT", bound=BaseModel)
Standing: TypeAlias = "tuple[DocumentRef, StageRecord]"
"""A stage's record, and where it lies."""
TRANSFERS = 16
"""How many objects move at a time."""
_READ_INSTANCES = frozenset({Stage.THUMBNAIL, Stage.SEGMENT})
"""The stages whose inputs are the instances themselves."""


async def read_document(store: ObjectStore, reference: DocumentRef, kind: type[DocumentT]) -> DocumentT:
    """Read a JSON document that an event names, and check its digest.

    Raises
    ------
    ObjectMissingError
        If it is not there.
    UnsupportedSeriesError
        If it is not the document that the event meant.
    """
    body = await store.read(reference.key)
    if hashlib.sha256(body).hexdigest() != reference.sha256:
        raise UnsupportedSeriesError("document-changed", f"{reference.key}: its digest is not the one in the event")
    return kind.model_validate_json(body)


@dataclass(frozen=True, slots=True)
class StageResults:
    """The results of one stage in the result store."""

    stores: Stores
    stage: Stage
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    async def once(self, keys: ResultKeys, work: Callable[[], Awaitable[Standing]]) -> Standing:
        """Return the record that stands, or do the work that writes it.

        One message can be in hand twice: it was published again, or the broker was away and delivers it again while
        this process is still at work. The second one waits for the first, and finds its record.
        """
        key = keys.stage_record(self.stage)
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            return await self.standing(keys) or await work()

    async def standing(self, keys: ResultKeys) -> Standing | None:
        """Return the record if the stage's work is done: it was written last, so all that it names stands."""
        key = keys.stage_record(self.stage)
        try:
            body = await self.stores.results.read(key)
        except ObjectMissingError:
            return None
        try:
            record = StageRecord.model_validate_json(body)
        except ValidationError as error:
            # Written whole or not at all, so this was tampered with or is of another version: do the work again.
            log.warning("stage record unreadable, working again", key=key, reason=str(error.errors()[0]["msg"]))
            return None
        return DocumentRef(key=key, sha256=hashlib.sha256(body).hexdigest()), record

    async def inputs(self, manifest: SeriesManifest, directory: Path) -> list[Path]:
        """Bring the instances onto the local disk, in the manifest's order.

        Raises
        ------
        UnsupportedSeriesError
            If an instance is gone, or is not the one that was validated.
        """

        async def fetch(numbered: tuple[int, ManifestInstance]) -> Path:
            number, instance = numbered
            reference = instance.object
            with _unlike(reference):
                store = self.stores.of(reference)
                return await store.fetch(reference.key, directory / str(number), etag=reference.etag)

        return await each(fetch, enumerate(manifest.instances), TRANSFERS)

    async def write(
        self, keys: ResultKeys, work: WorkResult, started: datetime, finished: datetime, domain_seconds: float
    ) -> tuple[DocumentRef, StageRecord]:
        """Write the artefacts, then the record that says so. `domain_seconds` is the work's wall time, all of it.

        Raises
        ------
        UnsupportedSeriesError
            If the work read the instances and one of them is no longer the one that was validated: it may have read
            the new content, which has an event of its own.
        """
        if self.stage in _READ_INSTANCES:
            await self._check_inputs(keys)
        record = StageRecord(
            stage=self.stage,
            service_version=__version__,
            started=started,
            finished=finished,
            seconds={**work.seconds, "domain": round(domain_seconds, 4)},
            artefacts=tuple(await self._write_files(keys, work.files)),
            measurements=work.measurements,
            warnings=work.warnings,
            trace_id=envelope.trace_id if (envelope := cause.get()) else "",
        )
        body = record.to_json()
        stored = await self.stores.results.write(keys.stage_record(self.stage), body, "application/json")
        return DocumentRef(key=stored.key, sha256=stored.sha256), record

    async def _check_inputs(self, keys: ResultKeys) -> None:
        """Look at the instances again: the local store hands out the user's own files, and these may change."""
        manifest = SeriesManifest.model_validate_json(await self.stores.results.read(keys.manifest))

        async def check(instance: ManifestInstance) -> None:
            with _unlike(instance.object):
                store = self.stores.of(instance.object)
                if store.in_place and (await store.head(instance.object.key)).etag != instance.object.etag:
                    raise ObjectChangedError(instance.object.key)

        await each(check, manifest.instances, TRANSFERS)

    async def _write_files(self, keys: ResultKeys, files: Sequence[OutputFile]) -> list[Artefact]:

        async def put(file: OutputFile) -> Artefact:
            stored = await self.stores.results.write_file(keys.artefact(file.name), file.path, file.media_type)
            return Artefact(name=file.name, media_type=file.media_type, size=stored.size, sha256=stored.sha256)

        return sorted(await each(put, files, TRANSFERS), key=lambda artefact: artefact.name)


@contextmanager
def _unlike(reference: ObjectRef) -> Iterator[None]:
    """Say what it means that an instance is not there, or is not the one that was validated."""
    try:
        yield
    except ObjectMissingError:
        raise UnsupportedSeriesError("input-gone", f"{reference.address()}: deleted since it was validated") from None
    except ObjectChangedError:
        raise UnsupportedSeriesError(
            "input-changed", f"{reference.address()}: replaced since it was validated"
        ) from None
