"""The rows that a batch of settlements is about, as they are and as they become. Pure decisions, no database.

The ledger reads the rows and locks them, lets one settlement after the other change them here, and writes what has
changed. So many objects cost one transaction, and each is decided as if it came alone: one that cannot be settled
changes nothing, and the next one finds what the one before it left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from voxelmill_ingest.assembly import evidence_of
from voxelmill_ingest.findings import Deidentified, Finding, Instance, Refusal, Unpacked, Withdrawn
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.settlement import ConflictError, ObjectChangedError
from voxelmill_shared.events import Envelope, ObjectRef, Severity
from voxelmill_shared.privacy import object_digest
from voxelmill_shared.projects import project_of

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from voxelmill_ingest.assembly import Patience
    from voxelmill_ingest.settlement import Settlement

Place: TypeAlias = tuple[str, str]
"""Bucket and key."""
InstanceKey: TypeAlias = tuple[str, str]
"""Series Instance UID and SOP Instance UID."""


@dataclass(frozen=True, slots=True)
class SeenObject:
    """What the ledger knew of an object before this batch."""

    etag: str
    size: int
    status: str
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """The object that an instance is in. `facts` is what its header says, or none where that has not changed."""

    reference: ObjectRef
    facts: Instance | None = None


@dataclass(frozen=True, slots=True)
class NewSeries:
    """What a series' row is made of, if there is none yet: those of its first instance."""

    study_instance_uid: str
    project: str


@dataclass(slots=True)
class OpenedSeries:
    """A series' row. `touches` is how often it was touched in this batch."""

    study_instance_uid: str
    project: str
    evidence: str | None
    changed_at: datetime
    due_at: datetime | None
    touches: int = 0


@dataclass(slots=True)
class Upload:
    """An upload's row.

    `objects` holds those of this batch that were counted before, and then those that are counted now. `series` is
    known if this batch may complete the upload.
    """

    settled: int
    expected: int | None
    objects: set[Place] = field(default_factory=set)
    series: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Whether all that was announced is settled."""
        return self.expected is not None and self.settled >= self.expected


@dataclass(slots=True)
class Books:
    """What a batch reads and changes.

    `objects`, `instances`, `series` and `uploads` are filled by who reads the database; an instance that is there under
    no key is gone. The rest is what must be written besides.
    """

    now: datetime
    patience: Patience
    source: str
    objects: dict[Place, SeenObject] = field(default_factory=dict)
    instances: dict[InstanceKey, Standing] = field(default_factory=dict)
    series: dict[str, OpenedSeries] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    object_rows: list[dict[str, Any]] = field(default_factory=list)
    upload_rows: list[dict[str, Any]] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)

    def check_present(self, one: Settlement) -> None:
        """Refuse to write down a content that has been replaced meanwhile.

        Raises
        ------
        ObjectChangedError
            If another content of the object has been written down since it was looked at.
        """
        seen = self.objects.get(one.place)
        if one.finding is None or seen is None or seen.status == "missing" or seen.last_seen <= one.looked_at:
            return
        if (seen.etag, seen.size) != (one.reference.etag, one.reference.size):
            raise ObjectChangedError(f"{one.reference.address()}: replaced while it was looked at")

    def settle(self, one: Settlement) -> bool:
        """Settle one object; true if series are due now, because it was the last one of its upload.

        Raises
        ------
        ConflictError
            If another object holds the same instance with other content. Nothing has changed.
        """
        if one.finding is None:
            self._note_missing(one)
            return self._count(one, None)
        finding, changed = one.finding, False
        if isinstance(finding, Instance):
            finding, changed = self._place(one, finding)
        self._displace(one, finding)
        self._record(one, finding)
        complete = self._count(one, finding)
        if isinstance(finding, Instance):
            evidence = evidence_of(one.upload_id) if complete and one.upload_id is not None else None
            self._touch(finding.series_instance_uid, one.upload_id, changed=changed, evidence=evidence)
        # Of a de-identified original nothing is told: its copy is what everybody else works with.
        told = () if isinstance(finding, Deidentified | Withdrawn) else (finding.event(one.reference, one.upload_id),)
        for event in (*told, *one.announce):
            self.envelopes.append(one.context.run(Envelope.wrap, event, self.source))
        return complete

    def _place(self, one: Settlement, found: Instance) -> tuple[Finding, bool]:
        """Give an instance its place in its series.

        Returns the finding as it is now, and whether the series changed.
        """
        if self.series[found.series_instance_uid].project != project_of(one.reference.key):
            # Without UIDs: those who see the other project's series would be told of this one.
            reason = Reason.SERIES_IN_TWO_PROJECTS
            return Refusal(reason=reason, detail="the series is known in another project"), False
        study = self.series[found.series_instance_uid].study_instance_uid
        if study != found.study_instance_uid:
            return _refused(found, Reason.SERIES_IN_TWO_STUDIES, f"the series is known in study {study}"), False
        here = (found.series_instance_uid, found.sop_instance_uid)
        standing = self.instances.get(here)
        mine = Standing(one.reference, found)
        if standing is None:
            self.instances[here] = mine
            return found, True
        other = standing.reference
        elsewhere = other.address() != one.reference.address()
        if other.content() == one.reference.content():
            if elsewhere:
                # A copy, or the file was moved: this one was just seen to be there, the other may be gone by now.
                self.instances[here] = mine
            return found, False
        if elsewhere:
            if one.rival is None or one.rival.reference != other:
                raise ConflictError(other)
            if one.rival.stands:
                detail = f"{object_digest(other.address())} is the same instance with other content"
                return _refused(found, Reason.CONFLICTING_INSTANCE, detail), False
        self.instances[here] = mine
        return found, True

    def _displace(self, one: Settlement, finding: Finding) -> None:
        """Take out of their series the instances that this object's earlier content was."""
        if one.place not in self.objects:
            return
        kept = (finding.series_instance_uid, finding.sop_instance_uid) if isinstance(finding, Instance) else None
        gone = [
            key
            for key, standing in self.instances.items()
            if key != kept and (standing.reference.bucket, standing.reference.key) == one.place
        ]
        for key in gone:
            del self.instances[key]
        for uid in {uid for uid, _ in gone}:
            self._touch(uid, one.upload_id, changed=True, evidence=None)

    def _record(self, one: Settlement, finding: Finding) -> None:
        """Write the object's row."""
        reason, identity = "", ("", "")
        if isinstance(finding, Unpacked):
            status = "unpacked"
        elif isinstance(finding, Deidentified):
            status = "deidentified"
        elif isinstance(finding, Withdrawn):
            status = "missing"
        else:
            status = "validated"
            identity = finding.series_instance_uid, finding.sop_instance_uid
        if isinstance(finding, Refusal):
            status = "skipped" if finding.reason.severity is Severity.SKIP else "rejected"
            reason = finding.reason.value
        self.object_rows.append(
            {
                **_columns(one.reference),
                "status": status,
                "reason": reason,
                "series_instance_uid": identity[0],
                "sop_instance_uid": identity[1],
                "upload_id": one.upload_id,
                "finding": finding.model_dump(mode="json"),
                "first_seen": self.now,
                "last_seen": self.now,
            }
        )

    def _note_missing(self, one: Settlement) -> None:
        """Note that an announced object is not there.

        What is known of an object that once was there stays: deleting an input changes no result.
        """
        if one.place in self.objects:
            return
        self.object_rows.append(
            {
                **_columns(one.reference),
                "status": "missing",
                "reason": "",
                "series_instance_uid": "",
                "sop_instance_uid": "",
                "upload_id": one.upload_id,
                "finding": None,
                "first_seen": self.now,
                "last_seen": self.now,
            }
        )

    def _count(self, one: Settlement, finding: Finding | None) -> bool:
        """Count the object as settled in its upload; true if the upload is complete."""
        if one.upload_id is None:
            return False
        upload = self.uploads[one.upload_id]
        if one.place in upload.objects:
            return upload.is_complete
        uid = finding.series_instance_uid if isinstance(finding, Instance) else ""
        bucket, key = one.place
        self.upload_rows.append({"upload_id": one.upload_id, "bucket": bucket, "key": key, "series_instance_uid": uid})
        upload.objects.add(one.place)
        upload.settled += 1
        if uid:
            upload.series.add(uid)
        if upload.is_complete:
            self.make_due(upload.series, evidence_of(one.upload_id))
        return upload.is_complete

    def make_due(self, uids: set[str], evidence: str) -> None:
        """Every series that a completed upload touched is complete."""
        for uid in uids:
            series = self.series[uid]
            series.evidence, series.due_at = evidence, self.now
            series.touches += 1

    def _touch(self, uid: str, upload_id: str | None, *, changed: bool, evidence: str | None) -> None:
        """Set the series' timer: look at it at once on evidence that its upload is complete, else after a while."""
        series = self.series[uid]
        series.changed_at = self.now
        series.touches += 1
        wait: timedelta | None = None
        if evidence is not None:
            series.evidence = evidence
        else:
            wait = self.patience.geometry if upload_id is None else self.patience.upload
            if changed:
                series.evidence = None
        series.due_at = self.now if wait is None else self.now + wait


def _columns(reference: ObjectRef) -> dict[str, Any]:
    return {
        "bucket": reference.bucket,
        "key": reference.key,
        "etag": reference.etag,
        "size": reference.size,
        "version_id": reference.version_id,
    }


def _refused(found: Instance, reason: Reason, detail: str) -> Refusal:
    identity = ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "modality")
    return Refusal(reason=reason, detail=detail, **{name: getattr(found, name) for name in identity})
