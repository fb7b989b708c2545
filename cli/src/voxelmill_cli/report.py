"""The tables and the JSON at the end of a run."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.table import Table

from voxelmill_cli.console import cell, revealed, say
from voxelmill_shared.events import Stage, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from voxelmill_cli.export import Exported
    from voxelmill_cli.run import RunSummary
    from voxelmill_shared.events import ObjectRejected, StageFailed
    from voxelmill_shared.results import Artefact

LISTED = 20
"""How many objects of a kind are listed one by one; the rest is counted. `--json` lists all."""


def size_text(size: int) -> str:
    """Write a size for people: `1.4 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def _stage_of(artefact: Artefact) -> Stage:
    name = artefact.name
    if name.startswith("thumbnails/"):
        return Stage.THUMBNAIL
    if PurePosixPath(name).name in {"labelmap.nii.gz", "segmentation.dcm", "statistics.json"}:
        return Stage.SEGMENT
    return Stage.MESH


def artefact_table(exported: Exported) -> Table:
    """List what was made of one series: artefact, size, and the time that its stage took."""
    receipt = exported.receipt
    table = Table(
        title=cell(f"{exported.folder.name} · {receipt.modality or 'image'} · {receipt.status}"), title_justify="left"
    )
    table.add_column("artefact")
    table.add_column("size", justify="right")
    table.add_column("stage")
    table.add_column("time", justify="right")
    instance_pictures = [a for a in receipt.artefacts if a.name.startswith("thumbnails/instance-")]
    shown: list[tuple[str, int, Stage]] = [
        (artefact.name, artefact.size, _stage_of(artefact))
        for artefact in receipt.artefacts
        if artefact not in instance_pictures
    ]
    if instance_pictures:
        total = sum(artefact.size for artefact in instance_pictures)
        shown.append((f"thumbnails/instance-*.webp ({len(instance_pictures)})", total, Stage.THUMBNAIL))
    order = {stage: number for number, stage in enumerate(Stage)}
    last: Stage | None = None
    for name, size, stage in sorted(shown, key=lambda row: (order[row[2]], row[0])):
        summary = receipt.stages.get(stage)
        seconds = summary.seconds.get("domain") if summary and stage != last else None
        table.add_row(name, size_text(size), stage, f"{seconds:.1f} s" if seconds is not None else "")
        last = stage
    for stage, summary in receipt.stages.items():
        if summary.outcome != "done":
            table.add_row(cell(f"{summary.outcome}: {revealed(summary.reason)}"), "", stage, "", style="yellow")
    return table


def volumes(exported: Exported) -> dict[str, float]:
    """Return the measured volumes in mL by segment, empty where nothing was segmented."""
    summary = exported.receipt.stages.get(Stage.SEGMENT)
    segments: Iterable[dict[str, Any]] = summary.measurements.get("segments", ()) if summary else ()
    return {segment["name"]: float(segment["volume_ml"]) for segment in segments}


def print_summary(console: Console, summary: RunSummary) -> None:
    """Print the end of a run for people."""
    for exported in summary.exported:
        console.print(artefact_table(exported))
        measured = volumes(exported)
        found = {name: value for name, value in measured.items() if value}
        if measured:
            line = " · ".join(f"{name} {value:,.{0 if value >= 1 else 2}f} mL" for name, value in found.items())
            none = len(measured) - len(found)
            console.print(
                f"volumes: {line or 'nothing was found'}" + (f" · {none} segments without voxels" * bool(none))
            )
        for warning in exported.receipt.warnings:
            say(console, f"warning: {warning}")
    print_ending(console, summary)


def print_ending(console: Console, summary: RunSummary) -> None:
    """Print what was not done and why, the counts, and the folder to open."""
    _list_objects(console, "skipped", summary.skipped)
    _list_objects(console, "rejected", summary.rejected)
    for name in summary.unnamed:
        line = f"rejected: {name}: the name is not UTF-8; rename it and run again (undecodable-name)"
        say(console, line)
    for failed in summary.failed:
        say(
            console,
            f"failed: {_named(summary, failed)}: {failed.stage}: {revealed(failed.reason)} ({failed.error_class})",
        )
    for uid in summary.lost:
        say(console, f"failed: {uid}: not indexed; see `voxelmill status --data {summary.data}`")
    complete = sum(exported.receipt.status is Status.COMPLETE for exported in summary.exported)
    partial = len(summary.exported) - complete
    parts = [
        f"{complete} series done",
        *([f"{partial} done in part"] if partial else []),
        f"{len(summary.skipped)} objects skipped",
        f"{len(summary.rejected) + len(summary.unnamed)} rejected",
        f"{len(summary.failed)} stages failed",
    ]
    say(console, f"{summary.objects} objects: {', '.join(parts)}, in {summary.seconds:.1f} s")
    for exported in summary.exported[:LISTED]:
        say(console, f"open {exported.place}")
    if len(summary.exported) > LISTED:
        say(console, f"and {len(summary.exported) - LISTED} more in {summary.destination}")
    if summary.kept is not None:
        say(console, f"a local copy stands in {summary.kept}")


def _named(summary: RunSummary, failed: StageFailed) -> str:
    """Name what failed as the user knows it: by its folder where it has one."""
    for exported in summary.exported:
        if exported.receipt.series_instance_uid == failed.series_instance_uid:
            return exported.folder.name
    return failed.subject()


def _list_objects(console: Console, word: str, objects: list[ObjectRejected]) -> None:
    for event in objects[:LISTED]:
        line = f"{word}: {event.object.key}: {revealed(event.detail)} ({event.reason})"
        say(console, line)
    if len(objects) > LISTED:
        console.print(f"{word}: {len(objects) - LISTED} more; `--json` lists them all", highlight=False)


def as_json(summary: RunSummary) -> dict[str, Any]:
    """Give a run's summary as data, for `--json`."""

    def objects(events: list[ObjectRejected]) -> list[dict[str, str]]:
        return [{"object": e.object.key, "reason": e.reason, "detail": revealed(e.detail)} for e in events]

    return {
        "destination": summary.destination,
        "local_copy": None if summary.kept is None else str(summary.kept),
        "objects": summary.objects,
        "seconds": round(summary.seconds, 3),
        "exit_code": summary.exit_code,
        "series": [
            {
                "folder": exported.place,
                "series_instance_uid": exported.receipt.series_instance_uid,
                "job": exported.receipt.job_id,
                "revision": exported.receipt.revision,
                "modality": exported.receipt.modality,
                "status": exported.receipt.status,
                "stages": {
                    stage: {"outcome": s.outcome, "reason": s.reason, "seconds": s.seconds}
                    for stage, s in exported.receipt.stages.items()
                },
                "volumes_ml": volumes(exported),
                "artefacts": [artefact.model_dump() for artefact in exported.receipt.artefacts],
                "warnings": list(exported.receipt.warnings),
            }
            for exported in summary.exported
        ],
        "skipped": objects(summary.skipped),
        "rejected": objects(summary.rejected)
        + [
            {"object": name, "reason": "undecodable-name", "detail": "the name is not UTF-8"}
            for name in summary.unnamed
        ],
        "failed": [
            {"subject": f.subject(), "stage": f.stage, "reason": revealed(f.reason), "error_class": f.error_class}
            for f in summary.failed
        ],
        "lost": summary.lost,
    }
