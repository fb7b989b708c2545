"""What the handler refuses before it looks at anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from voxelmill_index.handler import IndexEvent
from voxelmill_index.settling import SettleJob
from voxelmill_index.tables import OUTBOX
from voxelmill_shared.database import open_database
from voxelmill_shared.events import ObjectKind, ObjectRef, ObjectValidated
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_event_without_its_envelope_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """Nothing is recorded of which nobody knows who said it; not even the database is made."""
    engine, store = open_database(f"sqlite:///{tmp_path}/catalog.db"), LocalStore(tmp_path, "results")
    handler = IndexEvent(engine, Stores(store, store, store), SettleJob(engine, store, OUTBOX), lambda: None)
    with pytest.raises(LookupError, match="envelope"):
        await handler(ObjectValidated(object=ObjectRef(bucket="b", key="k", etag="e", size=1), kind=ObjectKind.DICOM))
    assert not await store.exists("catalog.db")
