"""A receipt held to the files of its job."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from voxelmill_shared import receipt_check
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import ObjectRef, Status
from voxelmill_shared.plan import Plan
from voxelmill_shared.receipt_check import verify_receipt
from voxelmill_shared.results import Artefact, ManifestInstance, Receipt, ResultKeys
from voxelmill_shared.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ResultKeys("1.2.3", 1, "job")
FILES = {"meshes/left.stl": b"left", "preview.webp": b"p" * 100, "empty.txt": b""}


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    """Give a store with a job whose receipt is right."""
    store = LocalStore(tmp_path / "results", "results")
    artefacts = []
    for name, body in FILES.items():
        await store.write(KEYS.artefact(name), body)
        digest = hashlib.sha256(body).hexdigest()
        artefacts.append(Artefact(name=name, media_type="x/y", size=len(body), sha256=digest))
    receipt = Receipt(
        job_id=KEYS.job_id,
        study_instance_uid="1.2",
        series_instance_uid=KEYS.series_instance_uid,
        revision=KEYS.revision,
        modality="CT",
        status=Status.COMPLETE,
        plan=Plan(),
        inputs=(ManifestInstance(object=ObjectRef(bucket="b", key="k", etag="e", size=1), sop_instance_uid="1"),),
        stages={},
        artefacts=tuple(artefacts),
        warnings=(),
        versions={},
        trace_id="",
    )
    await store.write(KEYS.receipt, receipt.to_json())
    await store.write(KEYS.manifest, b"{}")
    await store.write(f"{KEYS.prefix}/stages/mesh.json", b"{}")
    # The neighbours of a job are none of its business.
    await store.write(f"{KEYS.prefix}2/preview.webp", b"of another job")
    return store


async def test_a_right_receipt_has_no_problems(store: LocalStore) -> None:
    """Manifest, stages' records and the receipt itself need not be named."""
    assert await verify_receipt(store, KEYS.receipt) == []


async def test_files_are_read_in_pieces(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than one piece has the digest of the whole."""
    monkeypatch.setattr(receipt_check, "PIECE", 7)
    assert await verify_receipt(store, KEYS.receipt) == []


async def test_every_kind_of_problem_is_told_in_one_line(store: LocalStore) -> None:
    """Missing, grown, changed, and one that nobody named."""
    await store.delete(KEYS.artefact("meshes/left.stl"))
    await store.write(KEYS.artefact("preview.webp"), b"q" * 100)
    await store.write(KEYS.artefact("empty.txt"), b"!")
    await store.write(KEYS.artefact("stages/notes.txt"), b"")
    assert await verify_receipt(store, KEYS.receipt) == [
        f"{KEYS.prefix}/empty.txt: has 1 bytes, the receipt says 0",
        f"{KEYS.prefix}/meshes/left.stl: missing",
        f"{KEYS.prefix}/preview.webp: its SHA-256 is not the one that the receipt says",
        f"{KEYS.prefix}/stages/notes.txt: not named by the receipt",
    ]


async def test_a_receipt_in_the_wrong_place_is_a_problem(store: LocalStore) -> None:
    """The receipt of another job proves nothing about this one."""
    other = f"{KEYS.prefix}2/receipt.json"
    await store.write(other, await store.read(KEYS.receipt))
    assert await verify_receipt(store, other) == [f"{other}: this is the receipt of {KEYS.prefix}"]


async def test_something_else_is_no_receipt(store: LocalStore) -> None:
    """The line says what is wrong with it."""
    await store.write(KEYS.receipt, b'{"job_id": 3}')
    (problem,) = await verify_receipt(store, KEYS.receipt)
    assert problem.startswith(f"{KEYS.receipt}: not a receipt: job_id: ")


async def test_no_receipt_is_an_error(store: LocalStore) -> None:
    """There is nothing to verify."""
    with pytest.raises(ObjectMissingError):
        await verify_receipt(store, "9.9/r1/job/receipt.json")
