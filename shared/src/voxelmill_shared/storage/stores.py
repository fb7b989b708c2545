"""The stores of one installation, by role and by bucket name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxelmill_shared.errors import ObjectMissingError

if TYPE_CHECKING:
    from voxelmill_shared.events import ObjectRef
    from voxelmill_shared.storage.base import ObjectStore


@dataclass(frozen=True, slots=True)
class Stores:
    """`inbox` is where users put objects, `work` holds what ingest unpacks from archives, `results` what comes out."""

    inbox: ObjectStore
    work: ObjectStore
    results: ObjectStore

    def of(self, reference: ObjectRef) -> ObjectStore:
        """Return the store in which an object lies.

        Raises
        ------
        ObjectMissingError
            If no store of this installation has that name.
        """
        for store in (self.inbox, self.work, self.results):
            if store.bucket == reference.bucket:
                return store
        raise ObjectMissingError(reference.address())
