"""What is kept of the way from an original to its copy: encrypted, in the ledger's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite

from voxelmill_ingest.deidentify.errors import DeidentificationKeyError, ProjectUnknownError
from voxelmill_ingest.deidentify.keys import SealBrokenError
from voxelmill_ingest.rows import among
from voxelmill_ingest.tables import deidentification_projects, disclosures, pseudonyms
from voxelmill_ingest.tables import outbox as outbox_table
from voxelmill_shared import outbox
from voxelmill_shared.database import is_sqlite, reading, transaction
from voxelmill_shared.events import Envelope, PseudonymDisclosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy import Row, Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from voxelmill_ingest.deidentify.job import Copy
    from voxelmill_ingest.deidentify.keys import ProjectKeys

_CHECK = "key-check"
SOURCE = "voxelmill/pseudonym"
"""Who says that something was disclosed: the command, whoever gave it."""


@dataclass(frozen=True, slots=True)
class Disclosed:
    """An original and what stands for it. `kind` is patient, uid or object."""

    kind: str
    pseudonym: str
    original: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mapping:
    """One project's mapping. `now` is the clock."""

    engine: AsyncEngine
    keys: ProjectKeys
    now: Callable[[], datetime]

    async def check_key(self) -> None:
        """Hold the key against the one that the project began with; the first key that a project sees is that one.

        Raises
        ------
        DeidentificationKeyError
            If it is another one. What it made would not fit what stands.
        """
        project = self.keys.project
        row = {"project": project, "sealed": self.keys.seal({"project": project}, _CHECK), "first_seen": self.now()}
        query = select(deidentification_projects.c.sealed).where(deidentification_projects.c.project == project)
        async with transaction(self.engine) as connection:
            await _insert_if_new(connection, deidentification_projects, [row])
            sealed = (await connection.execute(query)).scalar_one()
        self._check(sealed)

    def _check(self, sealed: bytes) -> None:
        project = self.keys.project
        try:
            self.keys.open(sealed, _CHECK)
        except SealBrokenError:
            raise DeidentificationKeyError(
                f"VOXELMILL_INGEST_DEIDENTIFY_KEY: not the key that project {project!r} began with; set that one again,"
                " or give VOXELMILL_INGEST_PROJECT another name"
            ) from None

    async def keep(self, address: str, place: str, copy: Copy) -> None:
        """Write down what an object, its UIDs and its patient became; what is known already stays as it is.

        Parameters
        ----------
        address
            The original's bucket and key.
        place
            The copy's key.
        copy
            What the child made of it.
        """
        rows = [self._row("object", address, place, {"address": address})]
        rows += [self._row("uid", old, new, {"uid": old}) for old, new in copy.uids.items()]
        if (patient := copy.patient) is not None:
            content = {**patient.fields, "shift_days": patient.shift_days}
            rows.append(self._row("patient", patient.identity, patient.pseudonym, content))
        async with reading(self.engine) as connection:
            query = select(pseudonyms.c.kind, pseudonyms.c.lookup).where(
                pseudonyms.c.project == self.keys.project,
                among(connection, pseudonyms.c.kind, ("object", "uid", "patient")),
                among(connection, pseudonyms.c.lookup, (row["lookup"] for row in rows)),
            )
            known = {(row.kind, row.lookup) for row in await connection.execute(query)}
        new = [row for row in rows if (row["kind"], row["lookup"]) not in known]
        if new:
            async with transaction(self.engine) as connection:
                await _insert_if_new(connection, pseudonyms, sorted(new, key=lambda row: (row["kind"], row["lookup"])))

    async def disclose(self, asked: str, who: str) -> list[Disclosed]:
        """Tell what stands for what, and write down that it was told.

        Parameters
        ----------
        asked
            A patient's pseudonym, the Patient ID that it stands for, a UID or an object's address of either side.
        who
            Who asks, for the record.

        Returns
        -------
        list of Disclosed
            What was found. One Patient ID may be that of several patients, by who gave it.

        Raises
        ------
        ProjectUnknownError
            If nothing has ever been de-identified for the project.
        DeidentificationKeyError
            If the key is not the one that the project began with.
        """
        table = deidentification_projects
        async with transaction(self.engine) as connection:
            query = select(table.c.sealed).where(table.c.project == self.keys.project)
            sealed = (await connection.execute(query)).scalar()
            if sealed is None:
                raise ProjectUnknownError(f"project {self.keys.project!r}: nothing has been de-identified for it here")
            self._check(sealed)
            found = await self._find(connection, asked)
            record = {
                "project": self.keys.project,
                "who": who,
                "pseudonyms": [one.pseudonym for one in found],
                "occurred": self.now(),
            }
            row = await connection.execute(insert(disclosures).values(record).returning(disclosures.c.number))
            # The audit trail learns of it through ingest's outbox, when ingest runs.
            event = PseudonymDisclosed.model_validate({**record, "number": row.scalar_one()})
            await outbox.add(connection, outbox_table, [Envelope.wrap(event, SOURCE)])
        return found

    async def _find(self, connection: AsyncConnection, asked: str) -> list[Disclosed]:
        lookups = [self.keys.lookup(kind, asked) for kind in ("object", "uid")]
        of_project = pseudonyms.c.project == self.keys.project
        direct = (pseudonyms.c.pseudonym == asked) | pseudonyms.c.lookup.in_(lookups)
        query = select(pseudonyms).where(of_project, direct).order_by(pseudonyms.c.first_seen, pseudonyms.c.kind)
        rows = (await connection.execute(query)).all()
        if rows:
            return [self._opened(row) for row in rows]
        # A Patient ID is kept together with who gave it, which nobody who asks has at hand: look at all patients.
        patients = select(pseudonyms).where(of_project, pseudonyms.c.kind == "patient").order_by(pseudonyms.c.pseudonym)
        opened = [self._opened(row) for row in await connection.execute(patients)]
        return [one for one in opened if one.original["id"] == asked]

    def _opened(self, row: Row[Any]) -> Disclosed:
        return Disclosed(row.kind, row.pseudonym, self.keys.open(row.sealed, f"{row.kind}/{row.lookup}"))

    def _row(self, kind: str, original: str, pseudonym: str, content: dict[str, Any]) -> dict[str, Any]:
        lookup = self.keys.lookup(kind, original)
        return {
            "project": self.keys.project,
            "kind": kind,
            "lookup": lookup,
            "pseudonym": pseudonym,
            "sealed": self.keys.seal(content, f"{kind}/{lookup}"),
            "first_seen": self.now(),
        }


async def _insert_if_new(connection: AsyncConnection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    statement = sqlite.insert(table) if is_sqlite(connection) else postgresql.insert(table)
    await connection.execute(statement.on_conflict_do_nothing(), list(rows))
