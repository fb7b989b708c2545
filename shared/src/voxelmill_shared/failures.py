"""Why work fails: each error class that stands in a dead letter, in a log line or in a metric, and what to do about it.

`docs/failures.md` is printed from here: `python -m voxelmill_shared.failures > docs/failures.md`. A word is part of the
interface and is never renamed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What the runtime does with a message that failed so."""

    WAIT = "wait"
    """It waits without spending an attempt, however long it takes."""
    TRANSIENT = "transient"
    """It climbs the ladder; after the last rung it is a dead letter."""
    PERMANENT = "permanent"
    """It is a dead letter at once: another attempt would end like this one."""
    NOTED = "noted"
    """No message fails so: it is said in the log, by `/readyz` or by a command alone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One error class.

    Attributes
    ----------
    error_class
        The word.
    kind
        What becomes of the message.
    services
        Who says it; empty: every service.
    meaning, advice
        What happened, and what the operator does.
    """

    error_class: str
    kind: Kind
    services: tuple[str, ...]
    meaning: str
    advice: str

    @property
    def ladder(self) -> str:
        """How the message moves, for people."""
        return _LADDERS[self.kind]


_LADDERS: Final = {
    Kind.WAIT: "none: consumer cancelled or first rung, no attempt spent",
    Kind.TRANSIENT: "VOXELMILL_LADDER: 5 s, 30 s, 5 min, 30 min, then dead letter",
    Kind.PERMANENT: "none: dead letter at once",
    Kind.NOTED: "none",
}
_REPLAY: Final = "Replay when that is done."
_AS_SENT: Final = "Correct the series where it comes from and send it again; drop the letter."
_SKIPPED: Final = "Nothing: segment skips it."
_INCOMPLETE: Final = "Send what is missing: a late slice makes a new revision. Drop the letter."
_IMAGING: Final = ("segment", "thumbnail")
_CHILDREN: Final = ("ingest", "mesh", "segment", "thumbnail")
_W, _T, _P, _N = Kind.WAIT, Kind.TRANSIENT, Kind.PERMANENT, Kind.NOTED

_UNWORKABLE: Final = (
    ("unreadable-header", "The header cannot be read, or an element that is needed has no sense.", _AS_SENT),
    ("not-an-image", "The object has no pixels (or no Rows and Columns).", _AS_SENT),
    ("implausible-size", "The header claims more pixels than the file can hold or than is allowed.", _AS_SENT),
    ("truncated-pixels", "There are fewer pixel data than the header says: the file was cut off.", _AS_SENT),
    ("undecodable-pixels", "No decoder makes the pixels that the header describes of the data.", _AS_SENT),
    ("colour-images", "The images are in colour; a volume needs one value per voxel.", _SKIPPED),
    ("derived-object", "The object is made from images (a segmentation, a dose): it is not a volume.", _SKIPPED),
    ("no-geometry", "Position, orientation or pixel spacing is absent: where a voxel lies is unknown.", _SKIPPED),
    ("bad-geometry", "The geometry contradicts itself: directions not at right angles, spacing not > 0.", _AS_SENT),
    ("too-few-slices", "There are fewer than two slices.", _SKIPPED),
    ("mixed-series", "The files are of several patients, series, modalities or settings.", _AS_SENT),
    ("mixed-frames-of-reference", "The images lie in several frames of reference.", _AS_SENT),
    ("mixed-orientations", "The slices are not parallel: several blocks or scouts in one series.", _AS_SENT),
    ("mixed-sizes", "The images differ in rows, columns or pixel spacing.", _AS_SENT),
    ("repeated-positions", "Every position holds several images that nothing tells apart.", _AS_SENT),
    ("duplicate-positions", "Some positions hold several images of different content.", _AS_SENT),
    ("missing-slices", "The slices are even but for gaps: more are absent than may be filled in.", _INCOMPLETE),
    ("uneven-spacing", "The distances between the slices differ too much, or they drift sideways.", _AS_SENT),
    ("not-one-volume", "The voxels of a NIfTI file are several channels, or vectors.", _AS_SENT),
    ("unsupported-values", "The voxels are of a type that is no scalar (colour, complex).", _AS_SENT),
)
"""Series that cannot be worked on: `voxelmill_shared.imaging.reasons`, which needs more libraries than this."""
FAILURES: Final = (
    # Dependencies and capacity.
    Failure(
        "store-unavailable",
        _W,
        (),
        "The object store does not answer, or answers with an error of its own.",
        "Nothing to replay. See that it runs, has room and lets us in: `voxelmill doctor`.",
    ),
    Failure(
        "database-unavailable",
        _W,
        ("index", "ingest"),
        "The database does not answer, or has no connection free.",
        "Nothing to replay. See that it runs and has room; compare max_connections with VOXELMILL_DATABASE_POOL_SIZE"
        " times the processes.",
    ),
    Failure(
        "broker-unavailable",
        _W,
        (),
        "The broker does not answer, or confirms nothing.",
        "Nothing to replay. See that it runs; an alarm for memory or disk stops every publisher until it ends.",
    ),
    Failure(
        "disk-full",
        _W,
        (),
        "The scratch folder's disk has less room than work needs.",
        "Nothing to replay. Make room, or give VOXELMILL_SCRATCH another disk; the mark is VOXELMILL_SCRATCH_FREE_MIB.",
    ),
    Failure(
        "not-equipped",
        _W,
        ("segment",),
        "This worker lacks a library, weights or a device that the job needs.",
        "Bring what the line names (`voxelmill weights download`), or start a worker that has it: the message waits.",
    ),
    Failure(
        "queue-full",
        _N,
        ("ingest",),
        "Ingest's queue is as long as it may be, and sources are held back.",
        "Add replicas of ingest, or raise VOXELMILL_INGEST_QUEUE_LIMIT: docs/operations.md.",
    ),
    Failure(
        "source-unavailable",
        _N,
        ("ingest",),
        "A source of notifications does not answer, or refuses us.",
        "See /readyz of ingest for which one; the reconciler finds what is not told.",
    ),
    Failure(
        "dead-letters-held",
        _N,
        (),
        "Another command has the dead letters of this queue in its hands.",
        "Wait for it, or end it, and ask again.",
    ),
    Failure(
        "weights-unreachable",
        _N,
        ("segment",),
        "The server of the weights does not answer, or not with the file.",
        "Ask again later, or bring the file: `voxelmill weights import`.",
    ),
    Failure(
        "delivery-lost",
        _N,
        (),
        "The connection that brought a message is lost; the broker delivers it again.",
        "Nothing.",
    ),
    # Passing failures.
    Failure("transient", _T, (), "A dependency failed in passing.", f"Read the reason. {_REPLAY}"),
    Failure(
        "unexpected",
        _T,
        (),
        "An error that nobody foresaw: a bug, here or in a library.",
        "Report it with the line of the log that has this trace id. Replay after an upgrade that mends it.",
    ),
    Failure(
        "unroutable",
        _T,
        (),
        "An event was published that no queue wants: somebody deleted a queue.",
        f"Restart any service: it declares all queues. {_REPLAY}",
    ),
    Failure(
        "object-unreadable",
        _T,
        (),
        "The store answers and refuses this object: a right is missing, or it is archived.",
        f"Give the right, or restore the object from the archive. {_REPLAY}",
    ),
    Failure(
        "object-damaged",
        _T,
        (),
        "Twice, other bytes came than the store says it has.",
        f"Check the store and the network between; send the object again if it is damaged there. {_REPLAY}",
    ),
    Failure(
        "object-changed",
        _T,
        ("ingest",),
        "The object was replaced again and again while it was looked at.",
        "Drop: the new content has a notification of its own. If not, `voxelmill reconcile` finds it.",
    ),
    Failure(
        "document-missing",
        _T,
        ("index",),
        "A stage's record that an event names is not in the store.",
        "See who deletes results. Replay the stage's own message, or send the series again.",
    ),
    Failure(
        "document-changed",
        _T,
        ("index", "mesh", "segment", "thumbnail"),
        "A document is not the one that the event names.",
        "See who else writes results. Replay once; a second time, send the series again. Segment and thumbnail do not"
        " try again.",
    ),
    Failure(
        "child-timeout",
        _T,
        _CHILDREN,
        "The work took longer than VOXELMILL_CHILD_SECONDS.",
        "If the series is sound and large, raise it and replay; else drop: a poison series.",
    ),
    Failure(
        "child-out-of-memory",
        _T,
        _CHILDREN,
        "The work needs more memory than VOXELMILL_CHILD_MEMORY_MIB.",
        "If the series is sound and large, raise it and replay; else drop: a poison series.",
    ),
    Failure(
        "child-died",
        _T,
        _CHILDREN,
        "A signal ended the process that did the work: a crash in a library, or the system was out of memory.",
        "Look for `oom-kill` in the kernel's log. Replay once; if it dies again, drop it and report the file.",
    ),
    Failure(
        "child-exited",
        _T,
        _CHILDREN,
        "The process that did the work ended itself.",
        "Replay once; if it happens again, drop it and report the file.",
    ),
    Failure(
        "device-out-of-memory",
        _T,
        ("segment",),
        "The GPU has too little free memory for this volume, whatever was tried.",
        "See what else uses the device; give the series to a larger one, or choose a coarser resolution. Then replay.",
    ),
    Failure(
        "delivery-limit",
        _P,
        (),
        "Consumers died again and again with this message in hand: it may be their killer.",
        "Look in the log of the service for how they died. Replay one alone, and watch.",
    ),
    # What will not become better by itself.
    Failure(
        "undecodable",
        _P,
        (),
        "The body is no CloudEvents document, or no notification, of a kind known here.",
        "See who publishes to the exchange; upgrade if a newer version does. Drop, or replay after that.",
    ),
    Failure("rejected", _P, (), "The message cannot succeed.", "Read the reason."),
    Failure(
        "unknown-bucket",
        _P,
        ("ingest",),
        "An announced object lies in no store of this installation.",
        "See VOXELMILL_INBOX_URL and what the bucket's notifications name. Replay after a correction, else drop.",
    ),
    Failure(
        "unknown-series",
        _P,
        ("ingest",),
        "A job was asked for a series that the project does not have.",
        "See whether the ledger and the catalog are of the same installation; drop the letter.",
    ),
    Failure(
        "unsafe-key",
        _P,
        ("ingest",),
        "The object's key is unsafe, or too long to be written down.",
        "Put the object under a plain key; drop the letter.",
    ),
    Failure(
        "input-gone",
        _P,
        ("mesh", "segment", "thumbnail"),
        "An input was deleted after it was validated.",
        "Send the series again if it is wanted; drop the letter.",
    ),
    Failure(
        "input-changed",
        _P,
        ("segment", "thumbnail"),
        "An instance was replaced after it was validated.",
        "Drop: the new content makes a revision of its own.",
    ),
    Failure(
        "unfit-plan",
        _P,
        ("segment",),
        "The plan asks for a task, resolution or class that there is not.",
        "Correct VOXELMILL_TASK, VOXELMILL_RESOLUTION or VOXELMILL_ORGAN of ingest, then send the series again.",
    ),
    Failure(
        "licence-required",
        _P,
        ("segment",),
        "The task needs a licence that was not given.",
        f"Set VOXELMILL_TOTALSEGMENTATOR_LICENSE at segment. {_REPLAY}",
    ),
    Failure(
        "model-refused",
        _P,
        ("segment",),
        "The model ended the work on this volume for a reason of its own.",
        "Read the reason; choose another model or task for such series. Drop the letter.",
    ),
    Failure(
        "segments-invalid",
        _P,
        ("mesh",),
        "Segments of the label map have no fit number, name or colour, or share one of the first two.",
        "Report it: segment should never write such a label map.",
    ),
    Failure(
        "label-map-unreadable",
        _P,
        ("mesh",),
        "The label map cannot be read.",
        "See who else writes results; delete segment's record, then replay segment's message.",
    ),
    Failure(
        "label-map-invalid",
        _P,
        ("mesh",),
        "The label map is no label map: its affine, or its labels.",
        "See who else writes results; delete segment's record, then replay segment's message.",
    ),
    *(Failure(word, _P, _IMAGING, meaning, step) for word, meaning, step in _UNWORKABLE),
)
_BY_CLASS: Final = {failure.error_class: failure for failure in FAILURES}

_HEAD: Final = """\
<!-- Generated by `python -m voxelmill_shared.failures`; a test holds it to the code. -->
# Error classes

Each dead letter, each `stage.failed` and each line of a failed attempt carries one of these words. `voxelmill dlq show`
prints the operator's step; [operations.md](operations.md) is the runbook. Why ingest refuses an object is another list:
[validation.md](validation.md); no message fails then.

What `voxelmill run` prints is of the same words. It has a person waiting, so there a wait spends attempts as well.
"""
_TITLES: Final = {
    Kind.WAIT: (
        "Waits",
        "No attempt is spent, however long it takes. While a dependency is away, no message is taken.",
    ),
    Kind.TRANSIENT: (
        "Transient",
        "The message climbs `VOXELMILL_LADDER` (5 s, 30 s, 5 min, 30 min by default), then it is a dead letter.",
    ),
    Kind.PERMANENT: ("Permanent", "The message is a dead letter at once: another attempt would end like this one."),
    Kind.NOTED: ("Noted", "No message fails so: the log, `/readyz` or a command says it."),
}


def advice(error_class: str) -> Failure | None:
    """Return what is known of an error class; None of a word that another version or program wrote."""
    return _BY_CLASS.get(error_class)


def page() -> str:
    """Return the classes as a Markdown page."""
    parts = [_HEAD]
    for kind, (title, text) in _TITLES.items():
        parts.append(f"\n## {title}\n\n{text}\n\n| error class | who | meaning | what to do |\n|---|---|---|---|\n")
        parts += [
            f"| `{one.error_class}` | {', '.join(one.services) or 'every service'} | {one.meaning} | {one.advice} |\n"
            for one in FAILURES
            if one.kind is kind
        ]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
