"""The invariant, read from the servers and not from the services' own words.

Every object in the bucket is indexed or rejected with a reason; every series revision ends indexed or in a dead-letter
queue; every artefact named in a receipt exists with its digest; no artefact, no segmentation and no `series.indexed`
twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faults.store import INBOX, RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from faults.broker import DeadLetter
    from faults.installation import Installation
    from faults.made import Work

SETTLED = {"validated", "rejected", "skipped"}
ENDED = {"complete", "partial"}
TOLD = ("object.", "series.", "stage.")
"""Events that say what became of something; what only says how far something is may be said again."""
TYPE_PREFIX = "org.voxelmill."
STAGES = {"series.thumbnailed.v1", "series.segmented.v1", "series.meshed.v1"}


@dataclass(slots=True)
class Verdict:
    """What is wrong after a run.

    `lost` and `duplicated` are one line each. `again` counts events that were delivered again under the same id, which
    at-least-once allows, and `dead` messages that ended in a dead-letter queue.
    """

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    again: int = 0
    dead: int = 0


@dataclass(slots=True)
class Judge:
    """Looks at what came of the objects of one run."""

    installation: Installation
    work: Work
    _series: set[str] = field(default_factory=set)

    def pending(self) -> list[str]:
        """Say what has not come to its end, as the database has it and the broker; nothing if all has."""
        listed = self.installation.store.listed(INBOX, f"{self.work.prefix}/")
        missing = self._unsettled_objects(listed)
        revisions = self._revisions()
        jobs = self._jobs()
        ended = {(job["series_instance_uid"], job["revision"]) for job in jobs if _is_indexed(job)}
        missing += [f"{uid} r{revision}" for uid, revision in revisions if (uid, revision) not in ended]
        missing += self._unfinished_series(listed, jobs)
        if missing and any(self.installation.broker.dead().values()):
            letters = self.installation.broker.dead_letters()
            missing = self._unsettled_objects(listed, letters)
            dead = _revisions_in(letters)
            missing += [f"{uid} r{n}" for uid, n in revisions if (uid, n) not in ended | dead]
            missing += self._unfinished_series(listed, jobs, letters)
        return missing + self._open_series()

    def judge(self) -> Verdict:
        """Hold everything to the invariant."""
        verdict = Verdict()
        listed = self.installation.store.listed(INBOX, f"{self.work.prefix}/")
        letters = self.installation.broker.dead_letters()
        jobs = self._jobs()
        mine = [one for one in letters if self._is_mine(one)]
        verdict.dead = len(mine)
        verdict.lost += self._unsettled_objects(listed, letters)
        ended = {(job["series_instance_uid"], job["revision"]) for job in jobs if _is_indexed(job)}
        dead = _revisions_in(letters)
        manifests = self._manifests()
        for revision in sorted({*self._revisions(), *manifests}):
            # A manifest is written before its revision is: what was killed between the two left one that is no revision.
            if revision not in ended | dead and revision in set(self._revisions()):
                verdict.lost.append(f"{revision[0]} r{revision[1]}: neither indexed nor in a dead-letter queue")
        verdict.lost += self._unfinished_series(listed, jobs, letters)
        for job in jobs:
            self._check_job(job, listed, dead, verdict)
        self._check_jobs(jobs, verdict)
        self._check_writes(jobs, verdict)
        self._check_events(verdict)
        return verdict

    def series(self) -> set[str]:
        """The UIDs of the run's series, those of its NIfTI files included."""
        rows = self.installation.rows(
            "SELECT DISTINCT series_instance_uid AS uid FROM ingest_objects WHERE bucket = %s AND key LIKE %s",
            INBOX,
            f"{self.work.prefix}/%",
        )
        self._series |= {row["uid"] for row in rows if row["uid"]} | {one.uid for one in self.work.series}
        return self._series

    def _is_mine(self, letter: DeadLetter) -> bool:
        uid = letter.data.get("series_instance_uid", "")
        return uid in self._series or letter.object_key.startswith(f"{self.work.prefix}/")

    def _unsettled_objects(self, listed: dict[str, str], letters: Sequence[DeadLetter] = ()) -> list[str]:
        rows = self.installation.rows(
            "SELECT address, etag, status, reason FROM catalog_objects WHERE address LIKE %s",
            f"{INBOX}/{self.work.prefix}/%",
        )
        known = {row["address"].partition("/")[2]: row for row in rows}
        dead = {one.object_key for one in letters}
        problems = []
        for key, etag in listed.items():
            row = known.get(key)
            if (
                row
                and row["etag"] == etag
                and row["status"] in SETTLED
                and (row["reason"] or row["status"] == "validated")
            ):
                continue
            if key not in dead:
                problems.append(f"{key}: {'the catalog does not know it' if row is None else dict(row)}")
        return problems

    def _unfinished_series(
        self, listed: dict[str, str], jobs: list[dict[str, Any]], letters: Sequence[DeadLetter] = ()
    ) -> list[str]:
        """Say which series have no ended revision of just what the bucket holds."""
        dead_keys = {one.object_key for one in letters}
        dead = _revisions_in(letters)
        problems = []
        for one in self.work.series:
            here = {key: listed[key] for key in one.objects if key in listed and key not in dead_keys}
            mine = [job for job in jobs if job["series_instance_uid"] == one.uid]
            newest = max(mine, key=lambda job: job["revision"], default=None)
            if not here or any(uid == one.uid for uid, _ in dead):
                continue
            if newest is None or not _is_indexed(newest):
                problems.append(f"{one.uid}: no revision of it is indexed")
            elif newest["instances"] != len(here):
                problems.append(f"{one.uid}: {newest['instances']} instances are indexed of {len(here)} in the bucket")
        return problems

    def _open_series(self) -> list[str]:
        rows = self.installation.rows(
            "SELECT series_instance_uid AS uid FROM ingest_series WHERE due_at IS NOT NULL"
            " AND series_instance_uid = ANY(%s)",
            sorted(self.series()),
        )
        return [f"{row['uid']}: its timer is set" for row in rows]

    def _revisions(self) -> list[tuple[str, int]]:
        """Every revision that ingest's ledger says there is."""
        rows = self.installation.rows(
            "SELECT series_instance_uid AS uid, revision FROM ingest_series WHERE series_instance_uid = ANY(%s)",
            sorted(self.series()),
        )
        return [(row["uid"], number) for row in rows for number in range(1, row["revision"] + 1)]

    def _manifests(self) -> set[tuple[str, int]]:
        keys = (key for uid in self._series for key in self.installation.store.listed(RESULTS, f"{uid}/"))
        parts = (key.split("/") for key in keys if key.endswith("/manifest.json"))
        return {(uid, int(revision[1:])) for uid, revision, *_ in parts}

    def _jobs(self) -> list[dict[str, Any]]:
        return self.installation.rows(
            "SELECT series_instance_uid, revision, job_id, status, instances, indexed_at, receipt_key, receipt_sha256"
            " FROM catalog_jobs WHERE series_instance_uid = ANY(%s)",
            sorted(self.series()),
        )

    def _check_job(
        self, job: dict[str, Any], listed: dict[str, str], dead: set[tuple[str, int]], verdict: Verdict
    ) -> None:
        """Hold one job's receipt to what lies in the store."""
        uid, revision = job["series_instance_uid"], job["revision"]
        name = f"{uid} r{revision}"
        if not _is_indexed(job):
            return
        body = self.installation.store.read(RESULTS, job["receipt_key"])
        if body is None or hashlib.sha256(body).hexdigest() != job["receipt_sha256"]:
            what = "is not there" if body is None else "has another digest than in the catalog"
            verdict.lost.append(f"{name}: {job['receipt_key']} {what}")
            return
        receipt = json.loads(body)
        prefix = job["receipt_key"].removesuffix("receipt.json")
        for artefact in receipt["artefacts"]:
            content = self.installation.store.read(RESULTS, prefix + artefact["name"])
            if content is None or hashlib.sha256(content).hexdigest() != artefact["sha256"]:
                verdict.lost.append(f"{name}: {artefact['name']} is not there with the digest of its receipt")
        if (uid, revision) == max(one for one in self._revisions() if one[0] == uid):
            other = [one for one in receipt["inputs"] if listed.get(one["object"]["key"]) != one["object"]["etag"]]
            if other:
                verdict.lost.append(f"{name}: the newest revision has {len(other)} instances that the bucket has not")
        failed = [stage for stage, summary in receipt["stages"].items() if summary["outcome"] == "failed"]
        if failed and (uid, revision) not in dead:
            verdict.lost.append(f"{name}: {', '.join(failed)} failed, and no dead letter of it is there")
        if not failed:
            told = {artefact["name"] for artefact in receipt["artefacts"]}
            listed = {key.removeprefix(prefix) for key in self.installation.store.listed(RESULTS, prefix)}
            more = {key for key in listed - told if not key.startswith("stages/")} - {"manifest.json", "receipt.json"}
            verdict.duplicated += [f"{name}: {key} lies there and no receipt names it" for key in sorted(more)]

    def _check_jobs(self, jobs: list[dict[str, Any]], verdict: Verdict) -> None:
        """No revision has two jobs: nobody has changed the plan."""
        count = Counter((job["series_instance_uid"], job["revision"]) for job in jobs)
        verdict.duplicated += [f"{uid} r{n}: {times} jobs" for (uid, n), times in count.items() if times > 1]

    def _check_writes(self, jobs: list[dict[str, Any]], verdict: Verdict) -> None:
        """A stage's record is written once, when its work is done; more often, and the work was done again."""
        for job in jobs:
            prefix = f"{job['series_instance_uid']}/r{job['revision']}/{job['job_id']}/stages/"
            for key, times in self.installation.writes.writes(prefix).items():
                if times > 1:
                    verdict.duplicated.append(f"{key}: the stage was computed {times} times")

    def _check_events(self, verdict: Verdict) -> None:
        """One fact is one event: of each kind, job and outcome there is one id, in the tap and in the audit."""
        seen = self.installation.broker.seen
        facts: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
        for name, document in seen.documents.items():
            kind = str(document.get("type", "")).removeprefix(TYPE_PREFIX)
            data = document.get("data") or {}
            key = (data.get("object") or {}).get("key", "")
            mine = data.get("series_instance_uid") in self._series or key.startswith(f"{self.work.prefix}/")
            if not mine or not kind.startswith(TOLD) or kind == "object.uploaded.v1":
                continue
            verdict.again += seen.times[name] - 1
            if kind.startswith("series."):
                facts[kind, data["series_instance_uid"], f"r{data['revision']}", data.get("status", "")].add(name)
        verdict.duplicated += [
            f"{' '.join(fact).strip()}: {len(ids)} different events" for fact, ids in facts.items() if len(ids) > 1
        ]
        rows = self.installation.rows(
            "SELECT what, series_instance_uid AS uid, job_id, outcome, reason, count(*) AS times FROM audit"
            " WHERE series_instance_uid = ANY(%s) AND what LIKE 'series.%%' GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1",
            sorted(self._series),
        )
        verdict.duplicated += [f"{row['uid']}: {row['times']} audit records of {row['what']}" for row in rows]


def _is_indexed(job: dict[str, Any]) -> bool:
    return job["status"] in ENDED and job["indexed_at"] is not None


def _revisions_in(letters: Iterable[DeadLetter]) -> set[tuple[str, int]]:
    return {
        (one.data["series_instance_uid"], int(one.data["revision"]))
        for one in letters
        if one.data.get("series_instance_uid") and one.data.get("revision")
    }
