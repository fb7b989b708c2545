"""Series' volumes as NIfTI on the local disk: made once however many ask, and kept while there is room."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Self, TypeAlias

from voxelmill_gateway.problems import Problem
from voxelmill_gateway.task import BuildVolume
from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectChangedError, ObjectMissingError
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.results import SeriesManifest
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from voxelmill_shared.child import ChildPool
    from voxelmill_shared.parts import Scratch
    from voxelmill_shared.results import ManifestInstance
    from voxelmill_shared.storage.stores import Stores

Size: TypeAlias = Literal["preview", "full"]

_TRANSFERS: Final = 16


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """What a volume is made of: a series' manifest, and the label map that it is to lie under, if there is one."""

    manifest_key: str
    manifest_sha256: str
    label_map_key: str = ""
    label_map_sha256: str = ""

    @property
    def digest(self) -> str:
        """What names the volume."""
        return hashlib.sha256(f"{self.manifest_sha256}:{self.label_map_sha256}".encode()).hexdigest()[:40]


class VolumeCache:
    """Makes and keeps volumes. A context manager; they go with it.

    Parameters
    ----------
    stores, children, scratch
        Where inputs lie, who reads them, and where volumes are kept.
    limit
        The most bytes that are kept. What was asked for longest ago goes first.
    """

    def __init__(self, stores: Stores, children: ChildPool, scratch: Scratch, limit: int) -> None:
        self._stores = stores
        self._children = children
        self._scratch = scratch
        self._limit = limit
        self._folder = scratch.fresh("volumes")
        self._kept: OrderedDict[Path, int] = OrderedDict()
        self._building: dict[str, _Build] = {}
        self._stack = ExitStack()
        self._stands = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [build.task for build in self._building.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stack.close()

    async def opened(self, source: VolumeSource, size: Size) -> BinaryIO:
        """Return a volume's open file, which stays whole also when its name is dropped; the caller closes it.

        Raises
        ------
        Problem
            410 or 409 if an instance is gone or replaced, 422 if the series makes no volume.
        DiskFullError
            If there is no room to work in.
        """
        path = self._path(source, size)
        if path not in self._kept:
            await self._made(source, size)
        if path in self._kept:
            self._kept.move_to_end(path)
        return path.open("rb")

    def _path(self, source: VolumeSource, size: Size) -> Path:
        return self._folder / f"{source.digest}-{size}.nii.gz"

    async def _made(self, source: VolumeSource, size: Size) -> None:
        build = self._building.get(source.digest)
        if build is None:
            preview: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            build = _Build(asyncio.create_task(self._build(source, preview)), preview)
            self._building[source.digest] = build
            build.task.add_done_callback(partial(self._over, source.digest))
        wanted = {build.task, build.preview} if size == "preview" else {build.task}
        await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)  # who goes away does not stop it for others
        if build.task.done():
            build.task.result()

    def _over(self, digest: str, task: asyncio.Task[None]) -> None:
        self._building.pop(digest, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody did, it is no defect

    async def _build(self, source: VolumeSource, preview: asyncio.Future[None]) -> None:
        if not self._stands:
            self._stands = True
            self._stack.enter_context(self._scratch.hold(self._folder))
        manifest = await self._manifest(source)

        def told(_: Any) -> None:
            self._keep(self._path(source, "preview"))
            if not preview.done():
                preview.set_result(None)

        with self._scratch.folder("volume") as folder:
            label_map = None
            if source.label_map_key:
                label_map = await self._stores.results.fetch(source.label_map_key, folder / "labels")
            task = BuildVolume(
                paths=tuple(await self._inputs(manifest, folder)),
                nifti=manifest.kind is ObjectKind.NIFTI,
                label_map=label_map,
                preview=self._path(source, "preview"),
                full=self._path(source, "full"),
            )
            try:
                await self._children.call(task, told)
            except UnsupportedSeriesError as error:
                raise Problem(
                    422, "No volume", f"{manifest.series_instance_uid}: {error.reason}", code=error.code
                ) from None
        self._keep(self._path(source, "full"))

    async def _manifest(self, source: VolumeSource) -> SeriesManifest:
        body = await self._stores.results.read(source.manifest_key)
        if hashlib.sha256(body).hexdigest() != source.manifest_sha256:
            raise ObjectChangedError(source.manifest_key)
        return SeriesManifest.model_validate_json(body)

    async def _inputs(self, manifest: SeriesManifest, folder: Path) -> list[Path]:
        async def fetch(numbered: tuple[int, ManifestInstance]) -> Path:
            number, instance = numbered
            reference = instance.object
            try:
                store = self._stores.of(reference)
                return await store.fetch(reference.key, folder / str(number), etag=reference.etag)
            except ObjectMissingError:
                raise Problem(410, "Gone", f"{instance.sop_instance_uid}: its object was deleted") from None
            except ObjectChangedError:
                raise Problem(409, "Replaced", f"{instance.sop_instance_uid}: its object was replaced") from None

        return await each(fetch, enumerate(manifest.instances), _TRANSFERS)

    def _keep(self, path: Path) -> None:
        self._kept[path] = path.stat().st_size
        self._kept.move_to_end(path)
        mine, _, _ = path.name.partition("-")
        for other in [other for other in self._kept if not other.name.startswith(mine)]:
            if sum(self._kept.values()) <= self._limit:
                break
            del self._kept[other]
            other.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Build:
    """A volume in the making; `preview` is done when the preview stands."""

    task: asyncio.Task[None]
    preview: asyncio.Future[None]
