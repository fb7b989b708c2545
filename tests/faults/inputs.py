"""Faults of what comes in: notifications, late and overwritten objects, messages that nobody can read, replicas that race."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults.faults import BaseFault
from faults.store import INBOX
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded

if TYPE_CHECKING:
    from faults.harness import Run

QUEUES_OF = {
    "object.uploaded.v1": ("ingest.object-uploaded",),
    "series.validated.v1": ("thumbnail.series-validated", "segment.series-validated", "index.all-events"),
    "series.segmented.v1": ("mesh.series-segmented", "index.all-events"),
}
"""Where a message goes, by its routing key."""
LARGE_BYTES = 10_000_000


def announcement(run: Run, key: str, etag: str, **more: str) -> bytes:
    """Return `object.uploaded` of one object, as a source of notifications publishes it."""
    reference = ObjectRef(bucket=INBOX, key=key, etag=etag, size=len(run.work.objects()[key]))
    document = json.loads(Envelope.wrap(ObjectUploaded(object=reference, found_by="notification"), "faults").encode())
    document["data"] |= more
    return json.dumps(document).encode()


@dataclass(frozen=True)
class TwoReplicas(BaseFault):
    """Two processes of ingest take the objects of the same series."""

    def apply(self, run: Run) -> None:
        """Start another one, then put."""
        run.installation.add("ingest")
        run.installation.store.put(run.work.objects())

    def check(self, run: Run) -> list[str]:
        """End it."""
        run.installation.remove("ingest-2")
        return []


@dataclass(frozen=True)
class Notifications(BaseFault):
    """Half of the notifications are lost, the others come ten times, in no order."""

    def apply(self, run: Run) -> None:
        """Put, and announce half of it."""
        run.installation.store.put(run.work.objects())
        listed = run.installation.store.listed(INBOX, f"{run.work.prefix}/")
        half = run.random.sample(sorted(listed), len(listed) // 2)
        told = [announcement(run, key, listed[key]) for key in half for _ in range(10)]
        run.random.shuffle(told)
        run.installation.broker.publish([("object.uploaded.v1", body) for body in told])


@dataclass(frozen=True)
class LateSlice(BaseFault):
    """One slice comes when the series is indexed."""

    def apply(self, run: Run) -> None:
        """Put all but one end of a series, wait until it is indexed, then put the rest."""
        objects = run.work.objects()
        late = sorted(run.work.series[0].objects)[run.random.choice([0, -1])]
        run.installation.store.put({key: body for key, body in objects.items() if key != late})
        run.wait_until(lambda: run.jobs(indexed=True) >= len(run.work.series), "the series are indexed")
        run.installation.store.put({late: objects[late]})

    def check(self, run: Run) -> list[str]:
        """Both revisions are indexed."""
        jobs = run.jobs(indexed=True)
        return [] if jobs == len(run.work.series) + 1 else [f"{jobs} revisions are indexed"]


@dataclass(frozen=True)
class Overwritten(BaseFault):
    """Every slice of a series is overwritten while it is segmented."""

    def apply(self, run: Run) -> None:
        """Put, wait until a series is complete and so on its way to segment, and put other pixels under its keys."""
        run.installation.store.put(run.work.objects())
        run.wait_until(run.jobs, "a series is complete")
        run.pass_time(run.random.uniform(0.0, 0.8))
        run.installation.store.put(run.work.series[0].overwritten())


@dataclass(frozen=True)
class Undecodable(BaseFault):
    """Messages come that are no events; each must lie in the dead letters, byte for byte."""

    large: bool = False

    def apply(self, run: Run) -> None:
        """Publish one of each kind for each queue; with `large` one of 10 MB, and a good one of 10 MB."""
        random = run.random
        sent: list[tuple[str, bytes]] = []
        if self.large:
            sent.append((random.choice(list(QUEUES_OF)), random.randbytes(LARGE_BYTES)))
            key = random.choice(sorted(run.work.objects()))
            run.wait_until(lambda: run.installation.store.listed(INBOX, key), "the object is there")
            etag = run.installation.store.listed(INBOX, key)[key]
            good = announcement(run, key, etag, padding="x" * LARGE_BYTES)
            run.installation.broker.publish([("object.uploaded.v1", good)])
        else:
            whole = announcement(run, random.choice(sorted(run.work.objects())), "0" * 32)
            for routing_key in QUEUES_OF:
                sent += [
                    (routing_key, body + random.randbytes(4).hex().encode())
                    for body in (
                        random.randbytes(50),
                        b'{"specversion": "1.0"} ',
                        b"[]",
                        whole[: random.randrange(20, 200)],
                    )
                ]
        run.installation.broker.publish(sent)
        run.notes += [f"{queue} {hashlib.sha256(body).hexdigest()}" for key, body in sent for queue in QUEUES_OF[key]]

    def check(self, run: Run) -> list[str]:
        """Each lies in the dead letters of each queue that it went to, once."""
        found = [f"{one.queue} {one.digest}" for one in run.installation.broker.dead_letters()]
        return [
            f"{note}: {found.count(note)} times in the dead letters" for note in run.notes if found.count(note) != 1
        ]


INPUTS = (
    TwoReplicas("two-replicas", "two ingest replicas racing on one series", at_once=True, puts=True),
    Notifications(
        "notifications",
        "the same notification 10 times, out of order, half lost",
        settings={"ingest": {"SEAWEEDFS_FILER": ""}},
        at_once=True,
        puts=True,
    ),
    LateSlice("late-slice", "a late slice after indexing", at_once=True, puts=True),
    Overwritten("overwritten", "a series overwritten in the middle of its segmentation", at_once=True, puts=True),
    Undecodable("undecodable", "an undecodable message"),
    Undecodable("large-message", "a message of 10 MB", large=True),
)
