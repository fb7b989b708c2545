"""The instances that the catalog knows: where each lies, and which content of it is meant."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select

from voxelmill_gateway.problems import Problem, not_found
from voxelmill_shared.catalog.states import ObjectStatus
from voxelmill_shared.catalog.tables import DERIVED, HEADERS, INSTANCES, OBJECTS, SERIES
from voxelmill_shared.database import reading
from voxelmill_shared.errors import ObjectChangedError, ObjectMissingError
from voxelmill_shared.events import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.gateway import Gateway
    from voxelmill_shared.catalog.scope import Scope
    from voxelmill_shared.storage.base import ObjectStore
    from voxelmill_shared.storage.extent import Extent
    from voxelmill_shared.storage.local import LocalStore
    from voxelmill_shared.storage.stores import Stores

MOST: Final = 100_000
"""The most instances that one request is about."""
_VIDEO: Final = "1.2.840.10008.1.2.4.10"
"""What the UIDs of the video transfer syntaxes begin with: .100 to .108."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A DICOM instance, and the object that holds it.

    `etag` names the content that the catalog means; None for a result, whose key names it.
    """

    project: str
    study: str
    series: str
    sop: str
    transfer_syntax: str
    number: int | None
    frames: int
    bucket: str
    key: str
    etag: str | None
    size: int

    @property
    def decodable(self) -> bool:
        """Whether it can be had in another transfer syntax: all can that ingest takes, but videos."""
        return not self.transfer_syntax.startswith(_VIDEO)

    @property
    def path(self) -> str:
        """Its path behind the address of the service."""
        return f"/studies/{self.study}/series/{self.series}/instances/{self.sop}"

    @property
    def content(self) -> str:
        """What names its bytes, for caches."""
        return self.etag or f"{self.bucket}/{self.key}"

    def store(self, stores: Stores) -> ObjectStore:
        """Return the store that it lies in.

        Raises
        ------
        Problem
            410 if this installation has no such store any more.
        """
        for store in (stores.inbox, stores.work, stores.results):
            if store.bucket == self.bucket:
                return store
        raise self.gone()

    def gone(self) -> Problem:
        """Say that the object has been deleted."""
        return Problem(410, "Gone", f"{self.sop}: its object was deleted from the store; send the instance again")

    def replaced(self) -> Problem:
        """Say that the object is another one now."""
        return Problem(
            409,
            "Replaced",
            f"{self.sop}: its object was replaced, and is not taken for it; try again when it is indexed",
        )

    async def read(self, stores: Stores, start: int, length: int) -> bytes:
        """Read a range of the object.

        Raises
        ------
        Problem
            410 or 409 if the object is gone, or another one by now.
        """
        with self._there():
            piece = await self.store(stores).read(self.key, start, length, etag=self.etag)
        if len(piece) != length:
            raise self.replaced()
        return piece

    def open(self, store: LocalStore) -> Extent:
        """Open the object. Blocks.

        Raises
        ------
        Problem
            As `read`.
        """
        with self._there():
            extent = store.extent(self.key, etag=self.etag)
        if extent.length != self.size:
            raise self.replaced()
        return extent

    async def fetch(self, stores: Stores, folder: Path) -> Path:
        """Bring the object onto the local disk.

        Raises
        ------
        Problem
            As `read`.
        """
        with self._there():
            return await self.store(stores).fetch(self.key, folder, etag=self.etag)

    @contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except ObjectMissingError:
            raise self.gone() from None
        except ObjectChangedError:
            raise self.replaced() from None


async def find(
    gate: Gateway,
    caller: Caller,
    study: str,
    series: str | None = None,
    sop: str | None = None,
    *,
    action: str = "read",
) -> list[Instance]:
    """Return the instances of a study, a series, or the one, and write down that they are read.

    In the order of series, instance number and UID. What lies in another project is as if it were not there.

    Raises
    ------
    Problem
        404 if there are none, 410 or 409 if the only one that is asked for is there no more.
    """
    async with reading(gate.engine) as connection:
        found = await instances(connection, caller.scope(), study, series, sop)
    if not found:
        raise not_found(sop or series or study)
    if len(found) > MOST:
        raise Problem(413, "Too much at once", f"{study}: it has more than {MOST:,} instances; ask for a series of it")
    await gate.trail.record(
        caller, action, project=found[0].project, study=study, series=series or "", instance=sop or ""
    )
    return found


async def find_one(
    gate: Gateway, caller: Caller, study: str, series: str, sop: str, *, action: str = "read"
) -> Instance:
    """Return one instance; see `find`."""
    return (await find(gate, caller, study, series, sop, action=action))[0]


async def instances(
    connection: AsyncConnection, scope: Scope, study: str, series: str | None, sop: str | None
) -> list[Instance]:
    """Return the instances that somebody may see: those that came in, and those that Voxelmill has made."""
    came = (
        select(
            INSTANCES,
            SERIES.c.project,
            OBJECTS.c.etag,
            OBJECTS.c.sop_instance_uid.label("object_sop"),
            OBJECTS.c.status,
        )
        .join(SERIES, SERIES.c.series_instance_uid == INSTANCES.c.series_instance_uid)
        .join(OBJECTS, and_(OBJECTS.c.address == INSTANCES.c.object_address, OBJECTS.c.kind == ObjectKind.DICOM.value))
        .where(SERIES.c.study_instance_uid == study)
        .limit(MOST + 1)
    )
    made = (
        select(DERIVED, HEADERS.c.project)
        .join(HEADERS, HEADERS.c.series_instance_uid == DERIVED.c.series_instance_uid)
        .where(HEADERS.c.study_instance_uid == study)
        .limit(MOST + 1)
    )
    if series is not None:
        came = came.where(INSTANCES.c.series_instance_uid == series)
        made = made.where(DERIVED.c.series_instance_uid == series)
    if sop is not None:
        came = came.where(INSTANCES.c.sop_instance_uid == sop)
        made = made.where(DERIVED.c.sop_instance_uid == sop)
    rows: list[tuple[Row[Any], bool]] = [
        *((row, False) for row in await connection.execute(scope.over(came, SERIES.c.project))),
        *((row, True) for row in await connection.execute(scope.over(made, HEADERS.c.project))),
    ]
    found = [_made(row, study) if is_made else _came(row, study) for row, is_made in rows]
    return sorted(found, key=lambda one: (one.series, one.number is None, one.number or 0, one.sop))


def _came(row: Row[Any], study: str) -> Instance:
    bucket, _, key = row.object_address.partition("/")
    # An object that is another instance now has an ETag of its own, which must not be taken for this one's.
    same = row.object_sop == row.sop_instance_uid and row.status == ObjectStatus.VALIDATED.value
    return Instance(
        project=row.project,
        study=study,
        series=row.series_instance_uid,
        sop=row.sop_instance_uid,
        transfer_syntax=row.transfer_syntax_uid,
        number=row.instance_number,
        frames=row.frames,
        bucket=bucket,
        key=key,
        etag=row.etag if same else "another",
        size=row.size,
    )


def _made(row: Row[Any], study: str) -> Instance:
    return Instance(
        project=row.project,
        study=study,
        series=row.series_instance_uid,
        sop=row.sop_instance_uid,
        transfer_syntax=row.transfer_syntax_uid,
        number=row.instance_number,
        frames=row.frames,
        bucket="results",
        key=row.result_key,
        etag=None,
        size=row.size,
    )


def contents(found: Sequence[Instance]) -> str:
    """Return what names the contents of instances, in their order."""
    return "\n".join(f"{one.sop}:{one.content}" for one in found)
