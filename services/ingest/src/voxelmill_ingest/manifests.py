"""The manifest of a series revision for one plan: made from the ledger's rows, written, and named by its event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from voxelmill_ingest.assembly import Slice, in_order
from voxelmill_ingest.consistency import series_warnings
from voxelmill_ingest.findings import Instance
from voxelmill_ingest.tables import instances
from voxelmill_shared.events import DocumentRef, Evidence, ObjectRef, SeriesValidated
from voxelmill_shared.results import ManifestInstance, ResultKeys, SeriesManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voxelmill_shared.plan import Plan
    from voxelmill_shared.storage.base import ObjectStore


async def read_slices(connection: AsyncConnection, uid: str) -> list[Slice]:
    """Return what a series is made of now."""
    members = await connection.execute(select(instances).where(instances.c.series_instance_uid == uid))
    return [_slice(member) for member in members]


def make_manifest(row: Row[Any], slices: Sequence[Slice], plan: Plan, *, revision: int, job_id: str) -> SeriesManifest:
    """Return the manifest of a series, by its row in the ledger: its instances in their order, and what is odd."""
    ordered = in_order(slices)
    first = ordered[0].facts
    return SeriesManifest(
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        revision=revision,
        job_id=job_id,
        modality=first.modality,
        kind=first.kind,
        plan=plan,
        instances=tuple(one.instance for one in ordered),
        warnings=series_warnings([one.facts for one in ordered]),
    )


async def write_manifest(results: ObjectStore, manifest: SeriesManifest, evidence: Evidence) -> SeriesValidated:
    """Write a manifest; return the event that says so. The same manifest again is the same document and event."""
    keys = ResultKeys(manifest.series_instance_uid, manifest.revision, manifest.job_id)
    stored = await results.write(keys.manifest, manifest.to_json(), "application/json")
    return SeriesValidated(
        study_instance_uid=manifest.study_instance_uid,
        series_instance_uid=manifest.series_instance_uid,
        revision=manifest.revision,
        job_id=manifest.job_id,
        modality=manifest.modality,
        instances=len(manifest.instances),
        manifest=DocumentRef(key=keys.manifest, sha256=stored.sha256),
        plan=manifest.plan,
        evidence=evidence,
    )


def _slice(row: Row[Any]) -> Slice:
    facts = Instance.model_validate(row.facts, strict=False)
    reference = ObjectRef(bucket=row.bucket, key=row.key, etag=row.etag, size=row.size, version_id=row.version_id)
    instance = ManifestInstance(
        object=reference,
        sop_instance_uid=facts.sop_instance_uid,
        sop_class_uid=facts.sop_class_uid,
        transfer_syntax_uid=facts.transfer_syntax_uid,
        instance_number=facts.instance_number,
        frames=facts.frames,
    )
    return Slice(instance, facts)
