"""Frames as pictures for a screen (PS3.18 10.4.1.1.3). Runs in a child process."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from voxelmill_shared.imaging.frames import Window, WindowFunction, decode_frames
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.windowing import colours, grey_levels

if TYPE_CHECKING:
    from voxelmill_gateway.task import Draw, Viewport
    from voxelmill_shared.imaging.frames import Frame

MAX_PIXELS: Final = 1 << 26
"""The largest picture that is drawn: 8,192 squared."""
_LONGEST_WEBP: Final = 16_383
_FUNCTIONS: Final = {
    "linear": WindowFunction.LINEAR,
    "linear-exact": WindowFunction.LINEAR_EXACT,
    "sigmoid": WindowFunction.SIGMOID,
}


def draw(task: Draw) -> bytes:
    """Draw a frame with square pixels, in the window and the size that are asked for.

    Raises
    ------
    UnsupportedSeriesError
        If the file is no image, has no such frame, or the frame cannot be decoded or drawn.
    """
    image = open_image(task.path, "the object")
    number = image.frames // 2 if task.frame is None else task.frame
    if number >= image.frames:
        raise Unsupported.TRUNCATED_PIXELS.error(f"it has {image.frames} frames")
    (frame,) = decode_frames(image, [number])
    if task.window is not None:
        centre, width, function = task.window
        frame = replace(frame, display=replace(frame.display, voi=Window(centre, width, _FUNCTIONS[function])))
    return _encoded(_fitted(_picture(frame), frame.display.aspect, task.viewport), task)


def _picture(frame: Frame) -> Image.Image:
    if frame.stored.ndim == 2 and frame.display.palette is None:
        return Image.fromarray(np.ascontiguousarray(grey_levels(frame)))
    samples = np.ascontiguousarray(colours(frame))
    if not frame.display.photometric.startswith("YBR"):
        return Image.fromarray(samples)
    bands = [Image.fromarray(np.ascontiguousarray(samples[..., band])) for band in range(3)]
    return Image.merge("YCbCr", bands).convert("RGB")  # JFIF's equations are YBR_FULL's (PS3.3 C.7.6.3.1.2)


def _fitted(image: Image.Image, aspect: float, viewport: Viewport | None) -> Image.Image:
    """Cut out the part that is asked for and scale it into the viewport, its proportions kept (PS3.18 8.3.5.1.3)."""
    if not 1e-2 < aspect < 1e2:
        aspect = 1.0  # no detector has such pixels
    box = (0.0, 0.0, float(image.width), float(image.height))
    if viewport is not None and viewport.source is not None:
        image, box = _flipped(image, viewport.source)
    width, height = box[2] - box[0], (box[3] - box[1]) * aspect
    if viewport is None:
        scale = max(1.0, 1 / aspect) if abs(aspect - 1) > 5e-3 else 1.0
        scale = min(scale, (max(MAX_PIXELS, image.width * image.height) / (width * height)) ** 0.5)
    else:
        scale = min(viewport.width / width, viewport.height / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == image.size and box == (0, 0, *image.size):
        return image
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR
    return image.resize(size, way, box, reducing_gap=2.0)


def _flipped(
    image: Image.Image, source: tuple[float, float, float, float]
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Return the image, flipped where a size is negative, and the box of the part within it."""
    left, top, width, height = source
    if width < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = image.width - left - abs(width) if left else left
    if height < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        top = image.height - top - abs(height) if top else top
    right = left + abs(width) if width else image.width
    bottom = top + abs(height) if height else image.height
    box = (max(0.0, left), max(0.0, top), min(float(image.width), right), min(float(image.height), bottom))
    if box[2] - box[0] < 1 or box[3] - box[1] < 1:
        raise Unsupported.NOT_AN_IMAGE.error("the viewport's source lies outside of the image")
    return image, box


def _encoded(image: Image.Image, task: Draw) -> bytes:
    if image.width * image.height > MAX_PIXELS or (task.media_type == "image/webp" and max(image.size) > _LONGEST_WEBP):
        raise Unsupported.IMPLAUSIBLE_SIZE.error(f"a picture of {image.width} x {image.height} is more than is drawn")
    options: dict[str, Any] = {
        "image/jpeg": {"format": "JPEG", "quality": task.quality},
        "image/png": {"format": "PNG", "compress_level": 3},
        "image/webp": {"format": "WEBP", "quality": task.quality, "method": 1},
    }[task.media_type]
    out = BytesIO()
    image.save(out, **options)
    return out.getvalue()
