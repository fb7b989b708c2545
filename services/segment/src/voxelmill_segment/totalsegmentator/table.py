"""Writes `docs/totalsegmentator-tasks.md` from the library's tables and ours.

`python -m voxelmill_segment.totalsegmentator.table > docs/totalsegmentator-tasks.md`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from voxelmill_segment.organs import GROUPS, classes_of
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.tasks import (
    LICENCE_PAGE,
    LICENCE_VARIABLE,
    NON_COMMERCIAL,
    OPEN,
    REFUSED,
    networks_of,
    offered,
)
from voxelmill_shared.plan import Organ

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEW = 6
"""More classes than that are counted, and listed at the end."""
_NONE = "-"

_HEAD = """\
# The tasks of the model `totalsegmentator`, and what `--organ` means

Generated from the code and from TotalSegmentator {version}: `python -m voxelmill_segment.totalsegmentator.table`.

`voxelmill run SCAN --output OUT --model totalsegmentator --task NAME --resolution fast --organ lungs`; for a bucket
`VOXELMILL_MODEL`, `VOXELMILL_TASK`, `VOXELMILL_RESOLUTION` and `VOXELMILL_ORGAN` at ingest. Without a task it is
`total`, for MR series `total_mr`, and for `--organ body` `body` or `body_mr`. A task that was named for CT has its
kin for MR where there is one. A series of another modality is skipped with the reason.

The resolution is the grid that the networks work on. Where none is named it is `fast` for `--quality fast`, else
`normal`; tasks with one grid have that one.

## Open tasks

The library gives these out without a licence number, under its own licence, Apache-2.0. The list is ours: a task
that a later version of the library brings is looked at before it can be asked for. How large the weights are
`voxelmill weights list` shows once they are here. Grids are x, y, z of the canonical (RAS) volume.

| task | for | grid, mm | classes | data sets that it needs |
|---|---|---|---|---|
{tasks}

## Tasks that need a licence

Refused with the reason unless `{variable}` holds a licence number
([free for non-commercial use]({page})). Their weights come by the library's own
`totalseg_download_weights`, then `voxelmill weights import`:
{licensed}.

{terms}

Not offered: {refused}.

## What `--organ` means

One table for both models (`voxelmill_segment/organs.py`). Only the networks that the classes need are loaded and
run. Where `threshold` has nothing it skips the series and says so; `voxelmill run` says it before the work.

| organ | `threshold` | `total` (CT) | `total_mr` | other tasks |
|---|---|---|---|---|
{organs}

## Classes

In order of their labels, which are the segments' numbers.

{classes}
"""
_TERMS = """\
`{task}`: its weights are under {terms}, not for commercial use, though the library does not ask. Set
`{variable}={terms}` (or that beside a number, with a comma) to use them on these terms."""


def document() -> str:
    """Return the page."""
    licensed = [task for task in offered() if task not in OPEN and task not in NON_COMMERCIAL]
    return _HEAD.format(
        version=library.VERSION,
        tasks="\n".join(map(_task, OPEN)),
        variable=LICENCE_VARIABLE,
        page=LICENCE_PAGE,
        licensed=_code(licensed),
        terms="\n\n".join(
            _TERMS.format(task=task, terms=terms, variable=LICENCE_VARIABLE) for task, terms in NON_COMMERCIAL.items()
        ),
        refused="; ".join(f"`{task}` ({why})" for task, why in REFUSED.items()),
        organs="\n".join(map(_organ, Organ)),
        classes="\n\n".join(_classes(task) for task in OPEN if len(library.classes(task)) > _FEW),
    )


def _task(task: str) -> str:
    grids = []
    for resolution in library.resolutions(task):
        spacing = library.networks(task, resolution)[0].spacing
        if spacing is None:
            text = "the series' own"
        else:
            text = f"{spacing[0]:.3g}" if len(set(spacing)) == 1 else " x ".join(f"{step:.3g}" for step in spacing)
        grids.append(f"{resolution} {text}" if len(library.resolutions(task)) > 1 else text)
    classes = list(library.classes(task).values())
    shown = _code(classes) if len(classes) <= _FEW else str(len(classes))
    sets = ", ".join(str(network.dataset) for network in networks_of(task))
    return f"| `{task}` | {library.modality(task)} | {', '.join(grids)} | {shown} | {sets} |"


def _organ(organ: Organ) -> str:
    segments = _code(segment.name for segment in GROUPS[organ].segments)
    others = [task for task in OPEN if task not in {"total", "total_mr"} and classes_of(organ, library.classes(task))]
    last = "all" if organ is Organ.ALL else _code(others)
    return f"| `{organ}` | {segments} | {_of(organ, 'total')} | {_of(organ, 'total_mr')} | {last} |"


def _of(organ: Organ, task: str) -> str:
    names = classes_of(organ, library.classes(task)).values()
    return f"{len(names)} classes" if len(names) > 2 * _FEW else _code(names)


def _classes(task: str) -> str:
    return f"**{task}**: " + ", ".join(f"{label} `{name}`" for label, name in library.classes(task).items()) + "."


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or _NONE


if __name__ == "__main__":
    sys.stdout.write(document())
