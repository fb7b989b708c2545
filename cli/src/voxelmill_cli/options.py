"""The options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from voxelmill_shared.plan import TASK_PATTERN, ModelName, Organ, Quality, Resolution


def _a_task(value: str) -> str:
    if re.fullmatch(TASK_PATTERN, value) is None:
        raise typer.BadParameter("no name of a task; `voxelmill weights list` names them")
    return value


DataOption = Annotated[Path, typer.Option("--data", help="the folder that `voxelmill up` or a run works in")]
DEFAULT_DATA = Path("voxelmill-data")
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
OrganOption = Annotated[Organ, typer.Option("--organ", envvar="VOXELMILL_ORGAN", help="what to segment")]
ModelOption = Annotated[ModelName, typer.Option("--model", envvar="VOXELMILL_MODEL", help="the segmentation model")]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        envvar="VOXELMILL_TASK",
        callback=_a_task,
        help="a task of totalsegmentator by its name; by default total or total_mr",
    ),
]
ResolutionOption = Annotated[
    Resolution | None,
    typer.Option(
        "--resolution",
        envvar="VOXELMILL_RESOLUTION",
        help="the working grid of totalsegmentator; by default fast where the quality is fast, else normal",
    ),
]
QualityOption = Annotated[
    Quality, typer.Option("--quality", envvar="VOXELMILL_QUALITY", help="how fine the surfaces are")
]
ReductionOption = Annotated[
    int,
    typer.Option(
        "--reduction-percent",
        envvar="VOXELMILL_REDUCTION_PERCENT",
        min=0,
        max=99,
        help="how many of the triangles to take away",
    ),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-error-mm",
        envvar="VOXELMILL_MAX_ERROR_MM",
        min=0.001,
        max=100,
        help="how far a mesh may be from the smooth boundary of its voxels; fewer triangles are taken away, slowly",
    ),
]
