"""Holding a receipt to what lies in the store: every file that it names, whole, and no other."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import Stage
from voxelmill_shared.results import Receipt, ResultKeys

if TYPE_CHECKING:
    from voxelmill_shared.results import Artefact
    from voxelmill_shared.storage.base import ObjectStore

PIECE = 8 << 20
"""How many bytes of a file are in memory at a time."""
_AT_A_TIME = 8


async def verify_receipt(store: ObjectStore, key: str) -> list[str]:
    """Compare a receipt with the files of its job.

    Parameters
    ----------
    store
        The result store.
    key
        The receipt's key, `{series}/r{revision}/{job}/receipt.json`.

    Returns
    -------
    list of str
        One line for each problem, sorted: a file that is missing, has another size or another SHA-256 than the receipt
        says, or lies in the job's folder and is not named. Empty if everything is as the receipt says.

    Raises
    ------
    ObjectMissingError
        If there is no receipt.
    StoreUnavailableError
        If the store does not answer.
    """
    try:
        receipt = Receipt.model_validate_json(await store.read(key))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return [f"{key}: not a receipt: {'.'.join(map(str, first['loc']))}: {first['msg']}"]
    keys = ResultKeys(receipt.series_instance_uid, receipt.revision, receipt.job_id)
    if key != keys.receipt:
        return [f"{key}: this is the receipt of {keys.prefix}"]

    async def check(artefact: Artefact) -> str | None:
        return await _problem(store, keys.artefact(artefact.name), artefact)

    problems = [problem for problem in await each(check, receipt.artefacts, _AT_A_TIME) if problem]
    own = {keys.manifest, keys.receipt, *(keys.stage_record(stage) for stage in Stage)}
    named = {keys.artefact(artefact.name) for artefact in receipt.artefacts}
    found = [stat.key async for stat in store.list(f"{keys.prefix}/")]
    problems += [f"{other}: not named by the receipt" for other in found if other not in own | named]
    return sorted(problems)


async def _problem(store: ObjectStore, key: str, artefact: Artefact) -> str | None:
    try:
        size = (await store.head(key)).size
        if size != artefact.size:
            return f"{key}: has {size} bytes, the receipt says {artefact.size}"
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            digest.update(await store.read(key, start, PIECE))
    except ObjectMissingError:
        return f"{key}: missing"
    if digest.hexdigest() != artefact.sha256:
        return f"{key}: its SHA-256 is not the one that the receipt says"
    return None
