"""The chain of the audit trail: each record's hash is over its content and over the hash of the record before it.

Whoever changes, removes, puts in or moves a record breaks the chain there, unless every hash after it and the head are
computed anew. Against that helps a head that was written down somewhere else.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

GENESIS = "0" * 64
"""What stands before the first record."""
FORM = "voxelmill-audit-1"
"""Names the canonical form, so that another one can never give the same bytes."""
FIELDS = (
    *("event_id", "who", "what", "subject", "study_instance_uid", "series_instance_uid", "sop_instance_uid"),
    *("object_address", "job_id", "stage", "outcome", "reason", "occurred", "recorded", "trace_id", "caused_by"),
)
"""The columns of a record that its hash is over, in this order, after the form, the hash before and the number."""


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")


_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=_moment)


def record_hash(previous: str, number: int, record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record in its place, in hex.

    It is over one line of JSON: an array of `FORM`, the hash before, the number, and the values of `FIELDS`; ASCII with
    escapes, no spaces, moments in UTC with microseconds (`2026-01-02T03:04:05.000006+00:00`).

    Parameters
    ----------
    previous
        The hash of the record before, `GENESIS` for the first.
    number
        The record's number.
    record
        Its content, by column.
    """
    line = f'["{FORM}","{previous}",{number},{content(record)}]'
    return hashlib.sha256(line.encode("ascii")).hexdigest()


def content(record: Mapping[str, Any]) -> str:
    """Return the part of the line that is the record's own: the values of `FIELDS`, without brackets."""
    return _ENCODER.encode([record[name] for name in FIELDS])[1:-1]
