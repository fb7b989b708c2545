"""From stored values to grey levels and colours: modality transform, window or VOI table, polarity, palette.

Grey levels and palette colours are looked up: there are at most 65,536 stored values, so the whole chain is computed
once per table and not once per pixel. Wider values and numbers with a fraction are computed, a block of rows at a time.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.frames import Display, Frame, Window, WindowFunction
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from voxelmill_shared.imaging.palette import Palette
    from voxelmill_shared.imaging.transform import Padding

_LOW_PERCENT, _HIGH_PERCENT = 1.0, 99.5
_SAMPLES = 100_000
"""Percentiles of so many pixels are as good as of all."""
_ANY_TABLE_ENDS = 1 << 20
"""Tables have at most 65,536 entries from a first input of 16 bits on."""
_BLOCK = 1 << 20
"""How many pixels are computed at a time, so that the picture bounds the memory and not what is computed on the way."""


def window_values(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Map values in the modality's units to 0 to 255 (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    centre, width = window.centre, window.width
    part: NDArray[Any]
    kind = np.float64 if values.dtype == np.float64 else np.float32  # double where it is needed: it takes twice as long
    # Far below a sigmoid's window the exponential is infinite, and the grey level 0. What is not a number is black.
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(values, kind)
        if window.function is WindowFunction.SIGMOID:
            part = 1 / (1 + np.exp((values - kind(centre)) * kind(-4 / width)))
        elif window.function is WindowFunction.LINEAR_EXACT:
            part = (values - kind(centre)) / kind(width) + kind(0.5)
        elif width == 1:
            part = (values > centre - 0.5).astype(kind)  # what is left of the equation: a threshold
        else:
            part = (values - kind(centre - 0.5)) * kind(1 / (width - 1)) + kind(0.5)
    part = np.nan_to_num(np.clip(part, 0, 1), copy=False, nan=0.0)
    return (part * kind(255) + kind(0.5)).astype(np.uint8)


def percentile_window(values: NDArray[Any]) -> Window:
    """Return a window from the 1st to the 99.5th percentile, for images that bring none."""
    low, high = _percentiles(values)
    if high <= low:  # nearly all of the image is one value: show what differs from it
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = float(finite.min(initial=low)), float(finite.max(initial=high))
    return _between(low, high)


def _between(low: float, high: float) -> Window:
    width = high - low or 1.0
    return Window(low + width / 2, width, WindowFunction.LINEAR_EXACT)


def _percentiles(values: NDArray[Any]) -> tuple[float, float]:
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLES)]
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    low, high = np.percentile(flat, (_LOW_PERCENT, _HIGH_PERCENT)) if flat.size else (0.0, 1.0)
    return float(low), float(high)


def levels_of(values: NDArray[Any], voi: Window | LookUpTable, *, inverted: bool = False) -> NDArray[np.uint8]:
    """Map values in the modality's units to grey levels by a window or a VOI table (PS3.3 C.11.2)."""
    if isinstance(voi, LookUpTable):
        if values.dtype.kind == "f":  # what is not a number is no number that a table knows
            values = np.nan_to_num(values, nan=voi.first, posinf=_ANY_TABLE_ENDS, neginf=-_ANY_TABLE_ENDS)
            values = np.rint(values.clip(-_ANY_TABLE_ENDS, _ANY_TABLE_ENDS))
        levels = (voi.apply(values) * (255 / _top(voi)) + 0.5).clip(0, 255).astype(np.uint8)
    else:
        levels = window_values(values, voi)
    return 255 - levels if inverted else levels


def _top(table: LookUpTable) -> int:
    """Return the value that is white: the greatest of the descriptor's bits (PS3.3 C.11.2.1.1).

    There are tables with more bits than their descriptor says, and tables of 8 to 12 bits that say 16 because that is
    their cells' size. The entries tell.
    """
    needed = int(np.frombuffer(table.entries, np.uint16).max()).bit_length()
    bits = needed if needed > table.bits or (table.bits == 16 and 8 <= needed <= 12) else table.bits
    return (1 << bits) - 1


def grey_levels(frame: Frame, usual: Window | None = None) -> NDArray[np.uint8]:
    """Return the grey levels of a monochrome frame, (rows, columns).

    Parameters
    ----------
    frame
        The frame.
    usual
        The window to use if the frame brings none; the frame's own `usual_window` if left out.
    """
    display = frame.display
    stored = frame.stored
    voi = display.voi or usual or usual_window([frame])
    if stored.dtype.kind == "f" and isinstance(voi, Window) and voi.function is WindowFunction.LINEAR:
        voi = replace(voi, function=WindowFunction.LINEAR_EXACT)  # LINEAR's "width - 1" counts whole numbers
    levels = np.empty(stored.shape, np.uint8)
    if _is_wide(stored):
        for rows in _blocks(stored.shape):
            values = _values(stored[rows], display.modality, display.logarithmic)
            levels[rows] = levels_of(values, voi, inverted=display.inverted)
        return levels
    table = _table(display.modality, voi, stored.dtype.str, display.inverted, display.logarithmic, display.air)
    for rows in _blocks(stored.shape):
        _look_up(table, stored[rows], levels[rows])
    return levels


def _look_up(table: NDArray[np.uint8], stored: NDArray[Any], result: NDArray[np.uint8]) -> None:
    # The table has an entry for every stored value, so nothing wraps: the mode spares the check and a copy.
    table.take(stored.view(f"u{stored.dtype.itemsize}"), axis=0, out=result, mode="wrap")


def _is_wide(stored: NDArray[Any]) -> bool:
    return stored.dtype.kind == "f" or stored.dtype.itemsize > 2


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _BLOCK // shape[1])
    return [slice(first, first + rows) for first in range(0, shape[0], rows)]


def full_range_of(display: Display) -> Window | None:
    """Return the window of all that unsigned 8-bit images can hold, which are made to be shown as they are, else None.

    None too where the image brings a window or table of its own.
    """
    if (
        display.voi is None
        and display.bits_stored <= 8
        and not display.signed
        and display.modality == ModalityTransform()
    ):
        top = (1 << display.bits_stored) - 1
        return Window(top / 2, top, WindowFunction.LINEAR_EXACT)
    return None


def usual_window(frames: Sequence[Frame]) -> Window:
    """Return the window for frames of one modality transform that bring none.

    The full range of 8-bit images (`full_range_of`); else percentiles of what was measured.
    """
    display = frames[0].display
    whole = full_range_of(display)
    if whole is not None:
        return whole

    def values(step: int) -> NDArray[Any]:
        measured = np.concatenate([_measured(frame.stored[::step, ::step], frame.display) for frame in frames])
        return _values(measured, display.modality, display.logarithmic)

    pixels = sum(frame.stored.size for frame in frames)
    low, high = _percentiles(values(math.ceil(math.sqrt(pixels / _SAMPLES))))
    return _between(low, high) if low < high else percentile_window(values(1))


def _measured(stored: NDArray[Any], display: Display) -> NDArray[Any]:
    stored = stored.reshape(-1)
    left_out = np.zeros(stored.shape, np.bool_)
    if display.padding is not None:
        left_out |= display.padding.mask(stored)
    if display.palette is not None:
        left_out |= stored >= display.palette.red.first
    return stored if left_out.all() else stored[~left_out]


def _values(
    stored: NDArray[Any], modality: ModalityTransform, logarithmic: bool, air: Padding | None = None
) -> NDArray[Any]:
    values: NDArray[Any]
    if _is_wide(stored) and modality.table is None:
        values = stored * np.float64(modality.slope) + modality.intercept  # 32 bits have more digits than a float32
    else:
        values = modality.values(stored, air)
    return np.log2(np.maximum(values, 1).astype(np.float32)) if logarithmic else values


@lru_cache(maxsize=64)
def _table(
    modality: ModalityTransform,
    voi: Window | LookUpTable,
    dtype: str,
    inverted: bool,
    logarithmic: bool,
    air: Padding | None,
) -> NDArray[np.uint8]:
    return levels_of(_values(_every(np.dtype(dtype)), modality, logarithmic, air), voi, inverted=inverted)


def _every(kind: np.dtype[Any]) -> NDArray[Any]:
    """Return every value of a type of one or two bytes, in the order of their bits."""
    return np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)


def colours(frame: Frame, usual: Window | None = None) -> NDArray[np.uint8]:
    """Return the colours of a frame as RGB, and of a YBR frame still as full-range YCbCr: (rows, columns, 3).

    Parameters
    ----------
    frame
        An RGB, YBR or palette frame.
    usual
        The window for the grey part of a frame with a supplemental palette that brings none.
    """
    display, stored = frame.display, frame.stored
    if display.palette is not None:
        samples = _palette_colours(stored, display.palette)
        if not display.palette.supplemental:
            return samples
        coloured = stored >= display.palette.red.first
        return np.where(coloured[..., None], samples, grey_levels(frame, usual)[..., None])
    if stored.dtype != np.uint8 or display.bits_stored < 8:
        stored = _eight_bits(stored, display)
    return _full_range(stored) if "PARTIAL" in display.photometric else stored


def _eight_bits(stored: NDArray[Any], display: Display) -> NDArray[np.uint8]:
    if display.bits_stored >= 8:
        return (stored >> (display.bits_stored - 8)).astype(np.uint8)
    top = (1 << display.bits_stored) - 1
    return (stored * (255 / top) + 0.5).clip(0, 255).astype(np.uint8)


def _full_range(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the video range of YBR_PARTIAL_422 and _420 (16 to 235, chrominance 16 to 240) to YBR_FULL's."""
    every = np.arange(256)
    result = np.empty_like(stored)
    for band, (lowest, steps, centre) in enumerate(((16, 219, 0), (128, 224, 128), (128, 224, 128))):
        table = ((every - lowest) * (255 / steps) + centre + 0.5).clip(0, 255).astype(np.uint8)
        result[..., band] = table[stored[..., band]]
    return result


def _palette_colours(stored: NDArray[Any], palette: Palette) -> NDArray[np.uint8]:
    tables = (palette.red, palette.green, palette.blue)
    # Some writers put 8-bit entries into tables that they call 16-bit.
    wide = any(table.bits > 8 for table in tables) and any(
        int(np.frombuffer(table.entries, np.uint16).max()) > 255 for table in tables
    )
    shift = 8 if wide else 0

    def look_up(values: NDArray[Any]) -> NDArray[np.uint8]:
        return np.stack([(table.apply(values) >> shift).astype(np.uint8) for table in tables], axis=-1)

    colours = np.empty((*stored.shape, 3), np.uint8)
    every = None if _is_wide(stored) else look_up(_every(stored.dtype))
    for rows in _blocks(stored.shape):
        if every is None:
            colours[rows] = look_up(stored[rows])
        else:
            _look_up(every, stored[rows], colours[rows])
    return colours
