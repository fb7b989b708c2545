"""When a series is complete, in which order its instances stand, and what a change means. Pure decisions, no clock.

The rules are those of DESIGN 2.3: evidence of completeness, soonest first; without any, quiet time.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from voxelmill_shared.events import Evidence, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from voxelmill_ingest.findings import Instance
    from voxelmill_shared.results import ManifestInstance

ARCHIVE_UPLOAD = "archive-"
"""How the last part of an upload's id begins when the upload is the content of an archive."""
_GAP_TOLERANCE = 0.1
_DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a series stays open after its last instance.

    `geometry` when its slices lie without gaps, `quiet` when nothing is known, `upload` while an upload that it came
    with is not complete. `regular_slices` is how many slices say that there are no gaps.
    """

    geometry: timedelta = timedelta(seconds=5)
    quiet: timedelta = timedelta(seconds=30)
    upload: timedelta = timedelta(seconds=60)
    regular_slices: int = 10


@dataclass(frozen=True, slots=True)
class Slice:
    """One instance of a series: what the manifest says of it, and what its header says."""

    instance: ManifestInstance
    facts: Instance


@dataclass(frozen=True, slots=True)
class OpenSeries:
    """What is known of a series when its timer rings.

    `evidence` stands if an upload or archive with all its instances has been completed since the last change, and
    `upload_open` if an upload that it came with is still going on.
    """

    changed_at: datetime
    evidence: Evidence | None
    upload_open: bool
    slices: Sequence[Slice] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Close:
    """The series is complete."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Wait:
    """It may not be: look again then."""

    until: datetime


Decision: TypeAlias = Close | Wait


def decide(series: OpenSeries, now: datetime, patience: Patience) -> Decision:
    """Decide whether a series is complete."""
    if series.upload_open:
        limit, evidence = series.changed_at + patience.upload, Evidence.QUIET
    elif series.evidence is not None:
        limit, evidence = now, series.evidence
    elif is_whole(series.slices):
        limit, evidence = now, Evidence.GEOMETRY
    elif without_gaps(series.slices, patience.regular_slices):
        limit, evidence = series.changed_at + patience.geometry, Evidence.GEOMETRY
    else:
        limit, evidence = series.changed_at + patience.quiet, Evidence.QUIET
    return Close(evidence) if limit <= now else Wait(limit)


def is_whole(slices: Sequence[Slice]) -> bool:
    """Whether one file holds the whole volume, as a NIfTI file does: nothing can be missing."""
    return len(slices) == 1 and slices[0].facts.kind is ObjectKind.NIFTI


def evidence_of(upload_id: str) -> Evidence:
    """Say which evidence the end of an upload is."""
    return Evidence.ARCHIVE if upload_id.rpartition("/")[2].startswith(ARCHIVE_UPLOAD) else Evidence.UPLOAD


def archive_upload(upload_id: str | None, digest: str) -> str:
    """Name the upload that an archive's members make. It begins with the upload that the archive came with."""
    own = f"{ARCHIVE_UPLOAD}{digest}"
    return f"{upload_id}/{own}" if upload_id else own


def without_gaps(slices: Sequence[Slice], least: int) -> bool:
    """Whether the slices are parallel and evenly spaced along their normal, at least `least` of them.

    A gap of one missing slice doubles a distance, so a tenth of the median distance is tolerance enough for tables
    that do not move evenly. Two slices in one place are no volume of one piece.
    """
    if len(slices) < max(least, 2):
        return False
    heights = _heights(slices)
    if heights is None:
        return False
    heights = sorted(heights)
    steps = [above - below for below, above in itertools.pairwise(heights)]
    median = sorted(steps)[len(steps) // 2]
    return median > 0 and all(abs(step - median) <= _GAP_TOLERANCE * median for step in steps)


def in_order(slices: Iterable[Slice]) -> list[Slice]:
    """Sort instances: by position along the common normal if all have one, else by Instance Number, else by UID."""
    slices = list(slices)
    heights = _heights(slices) or [0.0] * len(slices)

    def key(numbered: tuple[float, Slice]) -> tuple[float, bool, int, str]:
        height, instance = round(numbered[0], 3), numbered[1].instance
        number = instance.instance_number
        return height, number is None, number or 0, instance.sop_instance_uid

    pairs = sorted(zip(heights, slices, strict=True), key=key)
    return [one for _, one in pairs]


def contents_digest(contents: Iterable[str]) -> str:
    """Name what a series is made of: the same instances give the same digest, whatever their order and keys."""
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()


def _heights(slices: Sequence[Slice]) -> list[float] | None:
    """Return each slice's position along the common normal in mm, none if a slice has no place or another direction.

    The normal is row direction x column direction (PS3.3 C.7.6.2.1.1).
    """
    if not slices or slices[0].facts.orientation is None:
        return None
    common = slices[0].facts.orientation
    ax, ay, az, bx, by, bz = common
    normal = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    length = math.hypot(*normal)
    if length < 0.5:  # the two directions of an image are unit vectors at right angles
        return None
    heights = []
    for one in slices:
        position, orientation = one.facts.position, one.facts.orientation
        if position is None or orientation is None:
            return None
        if any(abs(a - b) > _DIRECTION_TOLERANCE for a, b in zip(orientation, common, strict=True)):
            return None
        heights.append(sum(p * n for p, n in zip(position, normal, strict=True)) / length)
    return heights
