"""The segments of a job, put together from what segment's record, its statistics and mesh's files say."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from voxelmill_gateway.rest.links import file_url
from voxelmill_gateway.rest.models import SegmentOut
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.events import Stage
from voxelmill_shared.opacity import opacity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from voxelmill_shared.catalog import ArtefactView, JobView
    from voxelmill_shared.storage.base import ObjectStore

STATISTICS: Final = "segmentation/statistics.json"
_HOUNSFIELD: Final = "HU"
_MOST_BYTES: Final = 4 << 20
"""A model knows a hundred segments, whose statistics are 100 KiB; what is much more is none of ours."""
_KEPT: Final = 256
_FORMATS: Final = frozenset({".stl", ".ply", ".obj", ".mz3"})


class StatisticsReader:
    """Reads the statistics of segmentations, and remembers those that it read last, by their content."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: OrderedDict[str, dict[str, dict[str, Any]]] = OrderedDict()

    async def read(self, artefacts: Iterable[ArtefactView]) -> Mapping[str, dict[str, Any]]:
        """Return what was measured of each segment, by its name; nothing if the file is not there, or is another one.

        Raises
        ------
        StoreUnavailableError
            If the store does not answer.
        """
        file = next((artefact for artefact in artefacts if artefact.name == STATISTICS), None)
        if file is None or file.size > _MOST_BYTES:
            return {}
        if file.sha256 not in self._known:
            try:
                body = await self._store.read(file.key, 0, _MOST_BYTES)
            except ObjectMissingError:
                return {}  # somebody has tidied up the store; the job's record stands all the same
            self._known[file.sha256] = _measured(body)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(file.sha256)
        return self._known[file.sha256]


def _measured(body: bytes) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    hounsfield = document.get("unit") == _HOUNSFIELD
    segments = document.get("segments")
    return {
        str(segment.get("name")): {
            "mean_hu": segment.get("mean") if hounsfield else None,
            "flags": segment.get("flags", []),
        }
        for segment in (segments if isinstance(segments, list) else [])
        if isinstance(segment, dict)
    }


def segments_of(
    job: JobView, artefacts: Iterable[ArtefactView], measured: Mapping[str, dict[str, Any]]
) -> list[SegmentOut]:
    """Return the segments that were looked for, by number; one that was not found has no volume and no mesh."""
    described = (job.stage(Stage.SEGMENT).measurements or {}).get("segments")
    meshes: dict[str, dict[str, str]] = {}
    for artefact in artefacts:
        path = PurePosixPath(artefact.name)
        if artefact.stage is Stage.MESH and path.suffix in _FORMATS:
            meshes.setdefault(path.stem, {})[path.suffix[1:]] = file_url(job.job_id, artefact.name)
    found = [
        _segment(segment, measured.get(str(segment.get("name")), {}), meshes.get(str(segment.get("name")), {}))
        for segment in (described if isinstance(described, list) else [])
    ]
    return sorted(found, key=lambda segment: segment.number)


def _segment(described: Mapping[str, Any], measured: Mapping[str, Any], meshes: dict[str, str]) -> SegmentOut:
    name = str(described["name"])
    red, green, blue = described["rgb"]
    return SegmentOut(
        number=described["number"],
        name=name,
        label=label_of(name),
        colour=f"#{red:02x}{green:02x}{blue:02x}",
        opacity=opacity_of(name),
        volume_ml=described.get("volume_ml"),
        mean_hu=measured.get("mean_hu"),
        flags=list(measured.get("flags", [])),
        meshes=meshes,
    )


def label_of(name: str) -> str:
    """Return a segment's name for people: `vertebrae_L1` is `Vertebrae L1`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
