"""How fast does ingest read headers, and how little of an object does it fetch?

Two pairs, bytes in memory, interleaved rounds, CPU time, medians. The walk over the elements, which keeps the raw
values that ingest asks for, beside pydicom's `stop_before_pixels`, which keeps every raw value. And the inspection
of a whole object (the walk, the values decoded and all judged) beside pydicom with the same values asked for, unjudged.
Bytes: what the inspection reads of each object of the test data through a local store.

usage: python bench/headers.py    VOXELMILL_BENCH_RUNS (7)
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pydicom

from report import Aim, end, table
from volumes import data_folder
from voxelmill_ingest import elements, tags
from voxelmill_ingest.findings import Instance
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.ranges import FIRST_READ, Window, drive
from voxelmill_shared.events import ObjectRef
from voxelmill_shared.storage import local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from voxelmill_ingest.ranges import Reading

T = TypeVar("T")

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "7"))
KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDate"),
    *("SeriesTime", "SeriesNumber", "InstanceNumber", "FrameOfReferenceUID", "ImagePositionPatient"),
    *("ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    "BitsAllocated",
)


def feed(reading: Reading[T], data: bytes) -> T:
    """Run a reader to its end on bytes in memory."""
    try:
        wanted = next(reading)
        while True:
            wanted = reading.send(data[wanted.start : wanted.start + wanted.length])
    except StopIteration as finished:
        value: T = finished.value
        return value


def inspection(name: str, data: bytes) -> Any:
    """Make all that ingest makes of an object."""
    return feed(inspect(ObjectRef(bucket="incoming", key=name, etag="", size=len(data))), data)


def walk(_: str, data: bytes) -> Any:
    """Walk over the elements."""

    def reading() -> Reading[elements.Elements]:
        window = Window(len(data), data[:FIRST_READ])
        walker = yield from elements.open_data_set(window, tags.WANTED)
        yield from walker.run()
        return walker.found

    return feed(reading(), data)


def pydicom_header(_: str, data: bytes) -> Any:
    """Read a header with pydicom."""
    return pydicom.dcmread(BytesIO(data), stop_before_pixels=True, force=True)


def pydicom_values(_: str, data: bytes) -> Any:
    """Read a header with pydicom, and take from it what ingest takes."""
    header = pydicom_header("", data)
    return [header.get(keyword) for keyword in KEYWORDS]


READERS = {
    "walk": walk,
    "pydicom header": pydicom_header,
    "inspection": inspection,
    "pydicom values": pydicom_values,
}


def per_second(read: Callable[[str, bytes], Any], objects: dict[str, bytes]) -> float:
    """Read all objects once; instances per CPU second."""
    spent = time.process_time()
    for name, data in objects.items():
        read(name, data)
    return len(objects) / (time.process_time() - spent)


def speed(objects: dict[str, bytes]) -> dict[str, float]:
    """Give the medians of interleaved rounds."""
    rounds: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(RUNS):
        for name, read in READERS.items():
            rounds[name].append(per_second(read, objects))
    return {name: statistics.median(found) for name, found in rounds.items()}


class Counting:
    """A local store that counts what is read."""

    def __init__(self, folder: Path) -> None:
        self._store = local.LocalStore(folder)
        self.read_bytes: dict[str, int] = {}
        self.reads: dict[str, int] = {}

    async def inspect(self, key: str, size: int) -> Any:
        """Inspect an object as ingest does: the first bytes come with the look at the object, the rest by ranges."""

        async def read(start: int, length: int) -> bytes:
            if start == 0 and length <= FIRST_READ:
                _, data = await self._store.read_head(key, length)
            else:
                data = await self._store.read(key, start, length)
            self.read_bytes[key] = self.read_bytes.get(key, 0) + len(data)
            self.reads[key] = self.reads.get(key, 0) + 1
            return data

        return await drive(inspect(ObjectRef(bucket="incoming", key=key, etag="", size=size)), read)


async def fetched(folder: Path, objects: dict[str, int]) -> tuple[list[int], list[int]]:
    """Return the bytes and the reads of every object (name, size) that turns out to be an instance."""
    store = Counting(folder)
    instances = []
    for key, size in objects.items():
        if isinstance(await store.inspect(key, size), Instance):
            instances.append(key)
    return [store.read_bytes[key] for key in instances], [store.reads[key] for key in instances]


def main() -> None:
    """Measure and print."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.WARN  # pydicom's own default, for its own figures
    warnings.simplefilter("ignore")
    folder = data_folder()
    chest = {path.name: path.read_bytes() for path in sorted((folder / "ct_chest_lidc0314_2mm_j2k").iterdir())}
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    every = {key: path.read_bytes() for key, path in files.items()}
    every = {key: data for key, data in every.items() if isinstance(inspection(key, data), Instance)}
    figures = {"chest CT": speed(chest), "all instances": speed(every)}
    table(
        ["objects", "instances", *(f"{name} /s" for name in READERS), "walk x", "inspection x"],
        [
            [
                name,
                str(len(objects)),
                *(f"{one[reader]:.0f}" for reader in READERS),
                f"{one['walk'] / one['pydicom header']:.1f}",
                f"{one['inspection'] / one['pydicom values']:.1f}",
            ]
            for (name, one), objects in zip(figures.items(), (chest, every), strict=True)
        ],
    )
    sizes, reads = asyncio.run(fetched(folder, {key: path.stat().st_size for key, path in files.items()}))
    p50, p95 = (float(np.percentile(sizes, part)) for part in (50, 95))
    print(f"bytes fetched per instance ({len(sizes)}): p50 {p50:.0f}, p95 {p95:.0f}, max {max(sizes)}")
    print(f"reads per instance: mean {statistics.mean(reads):.2f}, most {max(reads)}")
    one = figures["chest CT"]
    end(
        "headers",
        {
            "walk_over_pydicom_header": Aim(one["walk"] / one["pydicom header"], 8, at_most=False),
            "inspection_over_pydicom_values": Aim(one["inspection"] / one["pydicom values"], 8, at_most=False),
        },
        {
            "per_second": figures,
            "bytes_p50": p50,
            "bytes_p95": p95,
            "bytes_max": max(sizes),
            "reads_max": max(reads),
            "reads_mean": round(statistics.mean(reads), 3),
        },
    )


if __name__ == "__main__":
    main()
