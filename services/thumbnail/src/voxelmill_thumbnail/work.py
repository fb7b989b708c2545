"""The thumbnail stage's work: the files of a series in, WebP pictures out. Runs in a child process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.decoding import decode, decoding_threads
from voxelmill_shared.imaging.frames import Window, decode_frames
from voxelmill_shared.imaging.image import DicomImage, open_image
from voxelmill_shared.imaging.nifti import read_nifti
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.series import SeriesLayout, lay_out
from voxelmill_shared.work import OutputFile, StepClock, UnsupportedSeriesError, WorkResult
from voxelmill_thumbnail.picture import picture_of, write_picture, write_thumbnails
from voxelmill_thumbnail.planes import draw_planes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from voxelmill_shared.imaging.frames import Display, Frame
    from voxelmill_shared.imaging.transform import LookUpTable, Values
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_thumbnail.task import ThumbnailTask

_PLANES = ("axial", "coronal", "sagittal", "mip", "preview")


@dataclass(frozen=True, eq=False)
class _Drawing:
    """What became of one instance. `slices` are the values of the volume's slices that it holds."""

    files: tuple[Path, ...]
    display: Display
    slices: dict[int, Values]


def make_thumbnails(task: ThumbnailTask, report: Callable[[str], None]) -> WorkResult:
    """Draw every instance (its middle frame), the middle planes, a projection and a preview.

    An instance that cannot be drawn is a warning that names it, and the others are drawn; planes are left out, with
    the reason as a warning, where the series is no volume.

    Parameters
    ----------
    task
        What to draw.
    report
        Told the name of each step.

    Raises
    ------
    UnsupportedSeriesError
        If no picture at all can be made.
    """
    task.output.mkdir(parents=True, exist_ok=True)
    return _draw_nifti(task, report) if task.kind is ObjectKind.NIFTI else _draw_dicom(task, report)


def _draw_nifti(task: ThumbnailTask, report: Callable[[str], None]) -> WorkResult:
    clock = StepClock(report)
    clock.begin("decode")
    volume = read_nifti(task.paths[0])
    clock.begin("planes")
    files = _write_planes(volume, None, task.output, inverted=False, thumbnails=True)
    clock.end()
    return WorkResult(
        files=_outputs(files),
        seconds=clock.seconds,
        measurements={"instances": 1, "drawn": 1, "planes": True, "window": {"source": "percentiles"}},
        warnings=volume.warnings,
    )


def _draw_dicom(task: ThumbnailTask, report: Callable[[str], None]) -> WorkResult:
    clock = StepClock(report)
    clock.begin("headers")
    images, failures = _open(task.paths)
    layout, reason = _try_lay_out(images, failures)
    clock.begin("pictures")
    drawings, undrawn = _draw_instances(images, layout, task.output)
    failures |= undrawn
    if not drawings:
        raise next(iter(failures.values()), Unsupported.NOT_AN_IMAGE.error("there are no instances"))
    clock.begin("planes")
    warnings = [f"instance {number + 1}: {failures[number].reason}" for number in sorted(failures)]
    files = [path for drawing in drawings.values() for path in drawing.files]
    number = sorted(drawings)[len(drawings) // 2]
    middle = drawings[number]
    if layout is not None and not failures:
        volume = _assemble(layout, drawings)
        shown = middle.display
        files += _write_planes(volume, shown.voi, task.output, inverted=shown.inverted)
        warnings += volume.warnings
    else:
        files.append(_write_preview(images[number], task.output))
        warnings.append(f"no planes: {reason or 'not every instance can be decoded'}")
    clock.end()
    return WorkResult(
        files=_outputs(files),
        seconds=clock.seconds,
        measurements={
            "instances": len(task.paths),
            "drawn": len(drawings),
            "planes": layout is not None and not failures,
            "window": _describe(middle),
        },
        warnings=tuple(warnings),
    )


def _open(paths: tuple[Path, ...]) -> tuple[dict[int, DicomImage], dict[int, UnsupportedSeriesError]]:
    images: dict[int, DicomImage] = {}
    failures: dict[int, UnsupportedSeriesError] = {}
    for number, path in enumerate(paths):
        try:
            images[number] = open_image(path)
        except UnsupportedSeriesError as error:
            failures[number] = error
    return images, failures


def _try_lay_out(
    images: dict[int, DicomImage], failures: dict[int, UnsupportedSeriesError]
) -> tuple[SeriesLayout | None, str]:
    if failures:
        return None, "not every instance can be read"
    try:
        return lay_out(list(images.values())), ""
    except UnsupportedSeriesError as error:
        return None, error.reason


def _draw_instances(
    images: dict[int, DicomImage], layout: SeriesLayout | None, output: Path
) -> tuple[dict[int, _Drawing], dict[int, UnsupportedSeriesError]]:
    def draw(number: int) -> _Drawing | UnsupportedSeriesError:
        try:
            return _draw_instance(images[number], number, layout, output)
        except UnsupportedSeriesError as error:
            return error

    drawings: dict[int, _Drawing] = {}
    failures: dict[int, UnsupportedSeriesError] = {}
    with ThreadPoolExecutor(decoding_threads()) as pool:
        for number, drawing in zip(images, pool.map(draw, images), strict=True):
            if isinstance(drawing, UnsupportedSeriesError):
                failures[number] = drawing
            else:
                drawings[number] = drawing
    return drawings, failures


def _draw_instance(image: DicomImage, number: int, layout: SeriesLayout | None, output: Path) -> _Drawing:
    """Decode an instance once, for its own picture and for the volume."""
    slices = {} if layout is None else {layout.stack.planes[k].frame: k for k in layout.slices_of[number]}
    middle = image.frames // 2
    shown = _frame(image, middle)
    files = write_thumbnails(picture_of(shown), output, f"instance-{number + 1}")
    values: dict[int, Values] = {}
    if layout is not None:
        others = [frame for frame in slices if frame != middle]
        for frame, encoded in zip(others, image.encoded(others) if others else (), strict=True):
            values[slices[frame]] = layout.frame_values(slices[frame], decode(image, frame, encoded)[0])
        if middle in slices:
            values[slices[middle]] = layout.frame_values(slices[middle], shown.stored)
    return _Drawing(tuple(files), shown.display, values)


def _frame(image: DicomImage, frame: int) -> Frame:
    return decode_frames(image, [frame])[0]


def _assemble(layout: SeriesLayout, drawings: dict[int, _Drawing]) -> Volume:
    values: list[Values | None] = [None] * len(layout.stack.planes)
    for drawing in drawings.values():
        for k, slice_ in drawing.slices.items():
            values[k] = slice_
        drawing.slices.clear()
    return layout.volume(values)


def _write_preview(image: DicomImage, output: Path) -> Path:
    return write_picture(picture_of(_frame(image, image.frames // 2)), output / "preview.webp")


def _write_planes(
    volume: Volume, window: Window | LookUpTable | None, output: Path, *, inverted: bool, thumbnails: bool = False
) -> list[Path]:
    planes = draw_planes(volume, window, inverted=inverted)
    files = write_thumbnails(planes.axial, output, "instance-1") if thumbnails else []
    return files + [write_picture(getattr(planes, name), output / f"{name}.webp") for name in _PLANES]


def _outputs(files: list[Path]) -> tuple[OutputFile, ...]:
    return tuple(OutputFile(f"thumbnails/{path.name}", path, "image/webp") for path in files)


def _describe(drawing: _Drawing) -> dict[str, Any]:
    voi = drawing.display.voi
    if isinstance(voi, Window):
        return {"source": "window", "centre": voi.centre, "width": voi.width, "function": str(voi.function)}
    if not drawing.display.photometric.startswith("MONOCHROME"):
        return {"source": "colour"}
    return {"source": "percentiles" if voi is None else "VOI LUT"}
