"""What goes between the service and the children that make copies. Light: the service itself reads no DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_ingest.deidentify.keys import Secrets
    from voxelmill_ingest.deidentify.profile import Option
    from voxelmill_shared.events import ObjectRef


@dataclass(frozen=True, slots=True)
class Job:
    """What a child is asked to do. `name` is the object's key: how a file is called may tell what it is."""

    source: Path
    name: str
    target: Path
    secrets: Secrets
    options: frozenset[Option]


@dataclass(frozen=True, slots=True)
class Patient:
    """Who an object is of, as it says itself, and what stands for that in the copy."""

    identity: str
    fields: dict[str, str]
    pseudonym: str
    shift_days: int


@dataclass(frozen=True, slots=True)
class Copy:
    """What was written to the job's `target`.

    `suffix` fits its content, `uids` says what each original UID became, and `patient` whose object it was (a NIfTI
    volume does not say).
    """

    suffix: str
    uids: dict[str, str]
    patient: Patient | None


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy in the work store, with its first bytes."""

    reference: ObjectRef
    head: bytes
