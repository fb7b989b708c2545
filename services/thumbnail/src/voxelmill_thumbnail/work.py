"""The thumbnail stage's work: the files of a series in, WebP pictures out. Runs in a child process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.decoding import decode, decoding_threads
from voxelmill_shared.imaging.frames import Frame, Window, body_part_of, decode_frames, display_of
from voxelmill_shared.imaging.nifti import read_nifti
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.series import SeriesLayout, lay_out_volumes
from voxelmill_shared.imaging.windowing import full_range_of
from voxelmill_shared.work import OutputFile, StepClock, UnsupportedSeriesError, WorkResult
from voxelmill_thumbnail.picture import picture_of, write_picture, write_thumbnails
from voxelmill_thumbnail.planes import draw_planes
from voxelmill_thumbnail.presets import CT_PRESETS, is_in_hu, presets_for
from voxelmill_thumbnail.sheet import draw_sheet, frames_to_show, thinned

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging.frames import Display
    from voxelmill_shared.imaging.image import DicomImage
    from voxelmill_shared.imaging.transform import Values
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.work import Report
    from voxelmill_thumbnail.task import ThumbnailTask

_MOST_OTHERS = 20
"""How many other parts of a series, and instances of which the same is true, are named one by one."""
_PLANES = ("axial", "coronal", "sagittal", "mip", "preview")


@dataclass(frozen=True, eq=False)
class _Drawing:
    """What became of one instance. `slices` are the values of the volume's slices that it holds."""

    files: tuple[Path, ...]
    display: Display
    slices: dict[int, Values]
    warnings: tuple[str, ...]


def make_thumbnails(task: ThumbnailTask, report: Report) -> WorkResult:
    """Draw every instance (its middle frame, and a sheet of its frames), the middle planes, a projection, a preview.

    A CT in HU also gets its axial plane in the windows that suit the part of the body.

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


def _draw_nifti(task: ThumbnailTask, report: Report) -> WorkResult:
    clock = StepClock(report)
    clock.begin("decode")
    volume = read_nifti(task.paths[0])
    clock.begin("planes")
    files = _write_planes(volume, None, None, task.output)
    clock.end()
    return WorkResult(
        files=_outputs(files),
        seconds=clock.seconds,
        measurements={"instances": 1, "drawn": 1, "planes": True, "window": {"source": "percentiles"}},
        warnings=volume.warnings,
    )


def _draw_dicom(task: ThumbnailTask, report: Report) -> WorkResult:
    clock = StepClock(report)
    clock.begin("headers")
    images, failures = _open(task.paths)
    layout, others, reason = _try_lay_out(images, failures)
    clock.begin("pictures")
    drawings, undrawn = _draw_instances(images, layout, task.output)
    failures |= undrawn
    if not drawings:
        raise next(iter(failures.values()), Unsupported.NOT_AN_IMAGE.error("there are no instances"))
    clock.begin("planes")
    warnings = _named([(number, failures[number].reason) for number in sorted(failures)])
    warnings += _named([(number, line) for number in sorted(drawings) for line in drawings[number].warnings])
    files = [path for drawing in drawings.values() for path in drawing.files]
    number = sorted(drawings)[len(drawings) // 2]
    if layout is not None and sum(len(drawing.slices) for drawing in drawings.values()) < len(layout.stack.planes):
        layout, reason = None, "not every slice of the volume can be decoded"
    if layout is not None:
        number = layout.stack.planes[len(layout.stack.planes) // 2].image
    middle = drawings[number]
    if layout is not None:
        volume = _assemble(layout, drawings)
        files += _write_planes(volume, images[number], middle.display, task.output)
        warnings += [*volume.warnings, *others]
    else:
        files.append(_write_preview(images[number], task.output))
        warnings.append(f"no planes: {reason}")
    clock.end()
    return WorkResult(
        files=_outputs(files),
        seconds=clock.seconds,
        measurements={
            "instances": len(task.paths),
            "drawn": len(drawings),
            "planes": layout is not None,
            "window": _describe(middle),
        },
        warnings=tuple(warnings),
    )


def _named(lines: list[tuple[int, str]]) -> list[str]:
    """Name the instances that each line is about, one warning for all of which the same is true."""
    numbers: dict[str, list[int]] = {}
    for number, line in lines:
        numbers.setdefault(line, []).append(number + 1)
    named = []
    for line, alike in numbers.items():
        which = ", ".join(map(str, alike[:_MOST_OTHERS]))
        more = f" and {len(alike) - _MOST_OTHERS} more" if len(alike) > _MOST_OTHERS else ""
        named.append(f"instance{'s' if len(alike) > 1 else ''} {which}{more}: {line}")
    return named


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
) -> tuple[SeriesLayout | None, tuple[str, ...], str]:
    """Return the volume that the planes are drawn of, the largest and of several alike the first; or why there is none.

    Between them: a line for each other part of the series.
    """
    if failures:
        return None, (), "not every instance can be read"
    try:
        found = lay_out_volumes(list(images.values()))
    except UnsupportedSeriesError as error:
        return None, (), error.reason
    layout = found.layouts[0]
    others = [f"not in the planes: {line}" for line in found.others(layout)]
    if len(others) > _MOST_OTHERS:
        others[_MOST_OTHERS:] = [f"not in the planes: {len(others) - _MOST_OTHERS} other parts of the series"]
    return layout, tuple(others), ""


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
    thin = {middle: thinned(shown)}
    values: dict[int, Values] = {}
    warnings = [shown.display.doubt] if shown.display.doubt else []
    if layout is not None and middle in slices:
        values[slices[middle]] = layout.frame_values(slices[middle], shown.stored)
    try:
        if layout is not None:
            values |= _read_slices(image, {frame: k for frame, k in slices.items() if frame != middle}, layout, thin)
        if image.frames > 1:
            files.append(_write_frames(image, thin, output / f"instance-{number + 1}-frames.webp"))
    except UnsupportedSeriesError as error:
        warnings.append(f"no sheet of frames: {error.reason}")
    return _Drawing(tuple(files), shown.display, values, tuple(warnings))


def _read_slices(
    image: DicomImage, slices: dict[int, int], layout: SeriesLayout, thin: dict[int, Frame]
) -> dict[int, Values]:
    """Decode the slices of a volume that are frames of one image, and thin those that its sheet shows."""
    values: dict[int, Values] = {}
    wanted = set(frames_to_show(image.frames))
    for frame, encoded in zip(slices, image.encoded(list(slices)) if slices else (), strict=True):
        stored, photometric = decode(image, frame, encoded)
        values[slices[frame]] = layout.frame_values(slices[frame], stored)
        if frame in wanted:
            thin[frame] = thinned(Frame(stored, display_of(image, frame, photometric)))
    return values


def _write_frames(image: DicomImage, thin: dict[int, Frame], path: Path) -> Path:
    """Write the contact sheet of a multi-frame image, decoding what is not yet in `thin`."""
    wanted = frames_to_show(image.frames)
    missing = [frame for frame in wanted if frame not in thin]
    for frame, encoded in zip(missing, image.encoded(missing) if missing else (), strict=True):
        stored, photometric = decode(image, frame, encoded)
        thin[frame] = thinned(Frame(stored, display_of(image, frame, photometric)))
    return write_picture(draw_sheet([thin[frame] for frame in wanted], [frame + 1 for frame in wanted]), path)


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


def _write_planes(volume: Volume, image: DicomImage | None, display: Display | None, output: Path) -> list[Path]:
    """Write the planes; `image` and `display` are the middle instance's, None for NIfTI, which has neither."""
    part = body_part_of(image) if image is not None else ""
    planes = draw_planes(
        volume,
        (display.voi or full_range_of(display)) if display is not None else None,
        inverted=display is not None and display.inverted,
        padding=_padded(display) if display is not None else None,
        presets={name: CT_PRESETS[name] for name in presets_for(part)} if is_in_hu(volume) else {},
    )
    pictures = {name: getattr(planes, name) for name in _PLANES}
    pictures |= {f"axial-{name}": plane for name, plane in planes.presets.items()}
    # Animals on four legs have other letters (PS3.3 C.7.6.1.1.1), and the affine does not tell them.
    lettered = image is None or image.text("AnatomicalOrientationType") != "QUADRUPED"
    files = [] if image is not None else write_thumbnails(planes.axial.image, output, "instance-1")
    for name, plane in pictures.items():
        marked = plane.marked() if lettered and name != "preview" else plane.image
        files.append(write_picture(marked, output / f"{name}.webp"))
    return files


def _padded(display: Display) -> tuple[float, float] | None:
    """Return from where to where the values lie that are padding in the modality's units."""
    if display.padding is None:
        return None
    ends = display.modality.apply(np.array([display.padding.low, display.padding.high]))
    return float(ends.min()), float(ends.max())


def _outputs(files: list[Path]) -> tuple[OutputFile, ...]:
    return tuple(OutputFile(f"thumbnails/{path.name}", path, "image/webp") for path in files)


def _describe(drawing: _Drawing) -> dict[str, Any]:
    voi = drawing.display.voi
    if isinstance(voi, Window):
        return {"source": "window", "centre": voi.centre, "width": voi.width, "function": str(voi.function)}
    if not drawing.display.photometric.startswith("MONOCHROME"):
        return {"source": "colour"}
    if voi is None:
        return {"source": "percentiles" if full_range_of(drawing.display) is None else "full range"}
    return {"source": "VOI LUT"}
