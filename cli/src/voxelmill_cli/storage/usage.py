"""What lies in a bucket and how much it takes: results by series and kind, everything else by its first folder."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from voxelmill_cli.storage.places import find_objects, open_bucket, reach

if TYPE_CHECKING:
    from voxelmill_shared.storage.base import ObjectStat

_RESULT = re.compile(r"(?P<series>[0-9.]{1,64})/r\d+/[^/]+/(?P<rest>.+)")
"""`{series_instance_uid}/r{revision}/{job}/…` (DESIGN: 4)."""


def kind_of(key: str) -> tuple[str, str]:
    """Return what an object counts to: a series and the kind of its artefact, or the first folder and nothing.

    The results may lie under any prefix: `results/1.2.3/r1/4f…/meshes/lung_left.stl` is one of the `meshes` of `1.2.3`.
    """
    parts = key.split("/")
    for start in range(len(parts)):
        match = _RESULT.fullmatch("/".join(parts[start:]))
        if match is not None:
            folder, slash, _ = match["rest"].partition("/")
            return match["series"], folder if slash else "records"
    return (f"{parts[0]}/" if len(parts) > 1 else "(no folder)"), ""


async def list_objects(address: str) -> list[ObjectStat]:
    """List everything under an address, or the one object of that key, sorted by key."""
    place = await find_objects(address, or_none=True)
    await place.store.close()
    return place.found


async def usage(address: str) -> dict[str, Any]:
    """Count objects and bytes, and what unfinished uploads hold.

    Returns
    -------
    dict
        `objects`, `bytes`; `by_kind`: a list of `name`, `kind`, `objects`, `bytes`, sorted by bytes; and
        `unfinished_uploads`: a list of `key`, `begun` (ISO 8601), `bytes`.
    """
    store = open_bucket(address)
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    try:
        await reach(store)
        async for stat in store.list():
            group = kind_of(stat.key)
            counts[group] += 1
            sizes[group] += stat.size
        unfinished = await store.unfinished_uploads()
    finally:
        await store.close()
    return {
        "objects": counts.total(),
        "bytes": sizes.total(),
        "by_kind": [
            {"name": name, "kind": kind, "objects": counts[name, kind], "bytes": size}
            for (name, kind), size in sizes.most_common()
        ],
        "unfinished_uploads": [
            {"key": one.key, "begun": one.begun.isoformat(), "bytes": one.bytes} for one in unfinished
        ],
    }
