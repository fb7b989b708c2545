"""From stored values to grey levels and colours: modality transform, window or VOI table, polarity, palette.

Grey levels are looked up: there are at most 65,536 stored values, so the whole chain is computed once per table and not
once per pixel.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.frames import Frame, Palette, Window, WindowFunction
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOW_PERCENT, _HIGH_PERCENT = 1.0, 99.5
_SAMPLES = 100_000
"""Percentiles of so many pixels are as good as of all."""


def window_values(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Map values in the modality's units to 0 to 255 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    values = np.asarray(values, np.float32)
    centre, width = window.centre, window.width
    part: NDArray[np.float32]
    if window.function is WindowFunction.SIGMOID:
        with np.errstate(over="ignore"):  # far below the window the exponential is infinite, and the grey level 0
            part = 1 / (1 + np.exp((values - np.float32(centre)) * np.float32(-4 / width)))
    elif window.function is WindowFunction.LINEAR_EXACT:
        part = (values - np.float32(centre)) * np.float32(1 / width) + np.float32(0.5)
    elif width == 1:
        part = (values > centre - 0.5).astype(np.float32)  # what is left of the equation: a threshold
    else:
        part = (values - np.float32(centre - 0.5)) * np.float32(1 / (width - 1)) + np.float32(0.5)
    return (np.clip(part, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def percentile_window(values: NDArray[Any]) -> Window:
    """Return a window from the 1st to the 99.5th percentile, for images that bring none."""
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLES)]
    low, high = (float(end) for end in np.percentile(flat, (_LOW_PERCENT, _HIGH_PERCENT))) if flat.size else (0.0, 1.0)
    if high <= low:  # nearly all of the image is one value: show what differs from it
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    width = high - low or 1.0
    return Window(low + width / 2, width, WindowFunction.LINEAR_EXACT)


def grey_levels(frame: Frame) -> NDArray[np.uint8]:
    """Return the grey levels of a monochrome frame, (rows, columns)."""
    display = frame.display
    stored = frame.stored
    voi = display.voi or _usual_window(frame)
    inverted = display.photometric == "MONOCHROME1"
    if stored.dtype.kind == "f" and isinstance(voi, Window) and voi.function is WindowFunction.LINEAR:
        voi = replace(voi, function=WindowFunction.LINEAR_EXACT)  # LINEAR's "width - 1" counts whole numbers
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        return _levels(display.modality.apply(stored), voi, inverted=inverted)
    table = _table(display.modality, voi, stored.dtype.str, inverted)
    levels: NDArray[np.uint8] = table[stored.view(f"u{stored.dtype.itemsize}")]
    return levels


def _usual_window(frame: Frame) -> Window:
    display, stored = frame.display, frame.stored
    if display.bits_stored <= 8 and not display.signed and display.modality == ModalityTransform():
        top = (1 << display.bits_stored) - 1  # such images are made to be shown as they are
        return Window(top / 2, top, WindowFunction.LINEAR_EXACT)
    if display.padding is not None:
        measured = stored[~display.padding.mask(stored)]
        stored = measured if measured.size else stored
    return percentile_window(display.modality.apply(stored.reshape(-1)))


@lru_cache(maxsize=64)
def _table(modality: ModalityTransform, voi: Window | LookUpTable, dtype: str, inverted: bool) -> NDArray[np.uint8]:
    kind = np.dtype(dtype)
    every = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
    return _levels(modality.apply(every), voi, inverted=inverted)


def _levels(values: NDArray[Any], voi: Window | LookUpTable, *, inverted: bool) -> NDArray[np.uint8]:
    if isinstance(voi, LookUpTable):
        # The output range is that of the descriptor's bits (C.11.2.1.1).
        levels = (voi.apply(values) * (255 / ((1 << voi.bits) - 1)) + 0.5).clip(0, 255).astype(np.uint8)
    else:
        levels = window_values(values, voi)
    return 255 - levels if inverted else levels


def colours(frame: Frame) -> NDArray[np.uint8]:
    """Return the colours of an RGB or palette frame as RGB, and of a YBR frame still as YCbCr: (rows, columns, 3)."""
    display = frame.display
    if display.palette is not None:
        return _palette_colours(frame.stored, display.palette)
    stored = frame.stored
    if stored.dtype != np.uint8:
        stored = (stored >> max(0, display.bits_stored - 8)).astype(np.uint8)
    return stored


def _palette_colours(stored: NDArray[Any], palette: Palette) -> NDArray[np.uint8]:
    tables = (palette.red, palette.green, palette.blue)
    # Some writers put 8-bit entries into tables that they call 16-bit.
    wide = any(table.bits > 8 for table in tables) and any(
        int(np.frombuffer(table.entries, np.uint16).max()) > 255 for table in tables
    )
    shift = 8 if wide else 0
    return np.stack([(table.apply(stored) >> shift).astype(np.uint8) for table in tables], axis=-1)
