"""What is to be written down of one object, and why it may not be."""

from __future__ import annotations

from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from voxelmill_ingest.findings import Finding
    from voxelmill_shared.events import Event, ObjectRef


class ObjectChangedError(TransientError):
    """The object was replaced while it was looked at: look again."""

    error_class = "object-changed"


class ConflictError(Exception):
    """Another object already holds this instance with other content. Nothing was written down.

    Whether that object still stands, and was there first, is the store's to say; settle again with the answer.
    """

    def __init__(self, other: ObjectRef) -> None:
        super().__init__(other)
        self.other = other


@dataclass(frozen=True, slots=True)
class Rival:
    """The object of a `ConflictError`, and whether it keeps the instance: it is still there, and was there first."""

    reference: ObjectRef
    stands: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """One object's settlement, as it is asked for.

    Attributes
    ----------
    reference
        The object with its present content.
    looked_at
        When the store was asked for it.
    finding
        What it is; none if it was announced and is not there.
    upload_id
        The upload that it was announced with.
    rival
        What became of an earlier `ConflictError`: this object is refused, or takes the other's place.
    announce
        Further events (the members of an archive).
    context
        Whose trace the events continue: many settlements are written down together, each on behalf of its own message.
    """

    reference: ObjectRef
    looked_at: datetime
    finding: Finding | None
    upload_id: str | None
    rival: Rival | None = None
    announce: Sequence[Event] = ()
    context: Context = field(default_factory=copy_context, compare=False, repr=False)

    @property
    def place(self) -> tuple[str, str]:
        """Bucket and key: what the ledger knows objects by."""
        return self.reference.bucket, self.reference.key
