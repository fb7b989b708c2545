"""Putting laid out results into a bucket: what stands there is not sent again, and the receipt comes last."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError
from voxelmill_cli.export import RECEIPT, other_names
from voxelmill_cli.storage.content import has_content
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.results import Receipt

if TYPE_CHECKING:
    from voxelmill_cli.export import Exported
    from voxelmill_cli.storage.places import BucketAddress
    from voxelmill_shared.results import Artefact
    from voxelmill_shared.storage.base import ObjectStat
    from voxelmill_shared.storage.s3 import S3Store

UPLOADS = 16
"""How many files move at a time."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends results into one destination.

    Parameters
    ----------
    store, address
        The destination.
    """

    store: S3Store
    address: BucketAddress

    async def send(self, exported: Exported) -> Exported:
        """Send what the destination lacks of one series' results.

        Where a receipt stands, all that it names stands too: an earlier one goes before the first of its files is
        replaced, the new one comes last, and what the earlier one named and the new one does not goes after that.

        Returns
        -------
        Exported
            The same, with its address in the bucket.

        Raises
        ------
        StoreUnavailableError
            If the bucket goes away. What has been sent is not sent again by the next call.
        """
        prefix, earlier = await self._own_prefix(exported)
        standing = await self._standing(prefix)
        body = await asyncio.to_thread((exported.folder / RECEIPT).read_bytes)
        missing = [
            artefact
            for artefact in exported.receipt.artefacts
            if not await _stands(exported.folder / artefact.name, standing.get(f"{prefix}/{artefact.name}"))
        ]
        if earlier is not None and (missing or earlier != body):
            await self.store.delete(f"{prefix}/{RECEIPT}")
        if missing or earlier != body:

            async def put(artefact: Artefact) -> None:
                path = exported.folder / artefact.name
                await self.store.resume_file(f"{prefix}/{artefact.name}", path, artefact.media_type)

            await each(put, missing, UPLOADS)
            await self.store.write(f"{prefix}/{RECEIPT}", body, "application/json")
            await self._remove_what_is_no_longer_named(prefix, earlier, exported.receipt)
        return replace(exported, address=f"{self.address.url}/{prefix}")

    async def check(self, exported: Exported) -> None:
        """Hold what stands in the destination to the files that were sent.

        Raises
        ------
        CommandError
            If something is missing there or is not the same.
        """
        prefix = exported.place.removeprefix(f"{self.address.url}/")
        standing = await self._standing(prefix)

        async def check(name: str) -> None:
            path, stat = exported.folder / name, standing.get(f"{prefix}/{name}")
            if not (await _stands(path, stat) or (stat is not None and await self._is_same(path, stat))):
                raise CommandError(
                    f"{exported.place}/{name}: does not stand there as it was sent; start again", EXIT_INPUT_FAILED
                )

        await each(check, [RECEIPT, *(artefact.name for artefact in exported.receipt.artefacts)], UPLOADS)

    async def _is_same(self, path: Path, stat: ObjectStat) -> bool:
        """Compare by reading: a server that encrypts with keys of its own gives ETags that say nothing."""
        with tempfile.TemporaryDirectory(prefix="voxelmill-check-") as folder:
            fetched = await self.store.fetch(stat.key, Path(folder))
            return await asyncio.to_thread(sha256, fetched) == await asyncio.to_thread(sha256, path)

    async def _standing(self, prefix: str) -> dict[str, ObjectStat]:
        return {stat.key: stat async for stat in self.store.list(f"{prefix}/")}

    async def _own_prefix(self, exported: Exported) -> tuple[str, bytes | None]:
        """Give the folder's name, or one with the UID's end where it holds another series; and the receipt there."""
        uid = exported.receipt.series_instance_uid
        for name in other_names(exported.folder.name, uid):
            body = await self._receipt(name)
            receipt = _read(body)
            if receipt is None or receipt.series_instance_uid == uid:
                return name, body
        raise AssertionError("the names never end")

    async def _receipt(self, prefix: str) -> bytes | None:
        try:
            return await self.store.read(f"{prefix}/{RECEIPT}")
        except ObjectMissingError:
            return None

    async def _remove_what_is_no_longer_named(self, prefix: str, earlier: bytes | None, receipt: Receipt) -> None:
        before = _read(earlier)
        if before is None or before.series_instance_uid != receipt.series_instance_uid:
            return  # nothing of it is ours to remove
        named = {artefact.name for artefact in receipt.artefacts}
        gone = [artefact.name for artefact in before.artefacts if artefact.name not in named]
        await each(self.store.delete, [f"{prefix}/{name}" for name in gone], UPLOADS)


async def _stands(path: Path, stat: ObjectStat | None) -> bool:
    return stat is not None and await asyncio.to_thread(has_content, path, stat.size, stat.etag)


def _read(body: bytes | None) -> Receipt | None:
    try:
        return None if body is None else Receipt.model_validate_json(body)
    except ValidationError:
        return None  # somebody else's file of that name


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def check_folder(exported: Exported) -> None:
    """Hold laid out files to the digests of their receipt.

    Raises
    ------
    CommandError
        If one is missing or is not the same.
    """

    async def check(artefact: Artefact) -> None:
        path = exported.folder / artefact.name
        try:
            same = await asyncio.to_thread(sha256, path) == artefact.sha256
        except FileNotFoundError:
            same = False
        if not same:
            raise CommandError(f"{path}: is not what its receipt says; start again", EXIT_INPUT_FAILED)

    await each(check, exported.receipt.artefacts, UPLOADS)
