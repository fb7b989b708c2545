"""Inputs are downloaded once: for both stages that read a series, and for every later run, on a real server."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from contract.storage_kit import Relay, relayed
from voxelmill_shared.concurrency import each
from voxelmill_shared.events import ObjectKind, ObjectRef, Stage
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import ManifestInstance, SeriesManifest
from voxelmill_shared.stage import StageResults
from voxelmill_shared.storage.cache import DownloadCache
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servers.seaweedfs import S3Server

pytestmark = pytest.mark.s3
SLICES = 12
SIZE = 60_000


@pytest.fixture
async def relay(s3_environment: S3Server) -> AsyncIterator[Relay]:
    """Give the way to the server, on which requests and bytes are counted."""
    async with relayed(s3_environment) as relay:
        yield relay


@pytest.fixture
async def manifest(bucket: str) -> SeriesManifest:
    """Give a series of twelve objects in the bucket."""
    store = S3Store(bucket, name="inbox")

    async def put(number: int) -> ManifestInstance:
        stored = await store.write(f"series/{number}.dcm", os.urandom(SIZE))
        reference = ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size)
        return ManifestInstance(object=reference, sop_instance_uid=f"1.2.3.{number}")

    instances = await each(put, range(SLICES), 4)
    await store.close()
    return SeriesManifest(
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        revision=1,
        job_id="job",
        modality="CT",
        kind=ObjectKind.DICOM,
        plan=Plan(),
        instances=tuple(instances),
    )


def stores(bucket: str, endpoint: str, cache: Path | None) -> Stores:
    """Open what one process opens."""
    opened = S3Store(
        bucket, name="inbox", endpoint_url=endpoint, cache=DownloadCache(cache, 1 << 30) if cache else None
    )
    return Stores(opened, opened, opened)


async def bring(stage: Stage, bucket: str, relay: Relay, manifest: SeriesManifest, folder: Path, cache: Path) -> int:
    """Fetch a stage's inputs as a fresh process does, look at them, and return how many bytes came over the wire."""
    before = relay.bytes_down
    opened = stores(bucket, relay.endpoint, cache)
    paths = await StageResults(opened, stage).inputs(manifest, folder)
    assert [path.stat().st_size for path in paths] == [SIZE] * SLICES
    await opened.inbox.close()
    return relay.bytes_down - before


async def test_segment_after_thumbnail_and_a_second_run_download_nothing(
    bucket: str, relay: Relay, manifest: SeriesManifest, tmp_path: Path
) -> None:
    """Not one byte comes: the server is not even asked."""
    assert await bring(Stage.THUMBNAIL, bucket, relay, manifest, tmp_path / "1", tmp_path / "cache") > SLICES * SIZE
    assert relay.count("GET", "series/") == SLICES
    assert await bring(Stage.SEGMENT, bucket, relay, manifest, tmp_path / "2", tmp_path / "cache") == 0
    assert await bring(Stage.THUMBNAIL, bucket, relay, manifest, tmp_path / "3", tmp_path / "cache") == 0
    assert relay.count("GET", "series/") == SLICES


async def test_thumbnail_beside_segment_shares_each_download(
    bucket: str, relay: Relay, manifest: SeriesManifest, tmp_path: Path
) -> None:
    """Both are told of a series at the same moment."""
    await asyncio.gather(
        bring(Stage.THUMBNAIL, bucket, relay, manifest, tmp_path / "1", tmp_path / "cache"),
        bring(Stage.SEGMENT, bucket, relay, manifest, tmp_path / "2", tmp_path / "cache"),
    )
    assert relay.count("GET", "series/") == SLICES


async def test_without_a_cache_everything_is_downloaded_again(
    bucket: str, relay: Relay, manifest: SeriesManifest, tmp_path: Path
) -> None:
    """That is what the tests above would see, did the cache not work."""
    for number in range(2):
        opened = stores(bucket, relay.endpoint, None)
        await StageResults(opened, Stage.SEGMENT).inputs(manifest, tmp_path / str(number))
        await opened.inbox.close()
    assert relay.count("GET", "series/") == 2 * SLICES


async def test_replaced_and_deleted_inputs_are_refused(
    bucket: str, relay: Relay, manifest: SeriesManifest, tmp_path: Path
) -> None:
    """By the download itself: no look at the object before it."""
    opened = stores(bucket, relay.endpoint, tmp_path / "cache")
    results = StageResults(opened, Stage.SEGMENT)
    await opened.inbox.write("series/3.dcm", b"another")
    with pytest.raises(UnsupportedSeriesError, match="replaced") as refused:
        await results.inputs(manifest, tmp_path / "1")
    assert refused.value.code == "input-changed"
    await opened.inbox.delete("series/3.dcm")
    with pytest.raises(UnsupportedSeriesError, match="deleted") as refused:
        await results.inputs(manifest, tmp_path / "2")
    assert refused.value.code == "input-gone"
    assert relay.count("HEAD", "series/") == 0
    await opened.inbox.close()


STAGE = """
import asyncio, sys
from pathlib import Path
from voxelmill_shared.storage.cache import DownloadCache
from voxelmill_shared.storage.s3 import S3Store

async def main():
    bucket, endpoint, folder, cache = sys.argv[1:]
    store = S3Store(bucket, endpoint_url=endpoint, cache=DownloadCache(Path(cache), 1 << 30))
    found = [stat async for stat in store.list("series/")]
    paths = [await store.fetch(stat.key, Path(folder), etag=stat.etag) for stat in found]
    print(len(paths), flush=True)
    await store.close()

asyncio.run(main())
"""


async def test_services_of_one_machine_share_one_cache(
    bucket: str, relay: Relay, manifest: SeriesManifest, tmp_path: Path
) -> None:
    """Three processes that begin together download each object once."""
    assert manifest.instances
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STAGE, bucket, relay.endpoint, str(tmp_path / str(number)), str(tmp_path / "c")),
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(3)
    ]
    for process in processes:
        said, _ = await process.communicate()
        assert (process.returncode, said) == (0, f"{SLICES}\n".encode())
    assert relay.count("GET", "series/") == SLICES
