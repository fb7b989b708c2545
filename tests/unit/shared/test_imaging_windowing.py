"""Grey levels by the Standard's equations, polarity, tables and palettes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from voxelmill_shared.imaging.frames import Display, Frame, Palette, Window, WindowFunction
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform, Padding
from voxelmill_shared.imaging.windowing import colours, grey_levels, percentile_window, usual_window, window_values

GREY_PALETTE = Palette(*[LookUpTable.from_data((256, 0, 8), list(range(256)))] * 3)


def frame(stored: Any, **changes: Any) -> Frame:
    values: dict[str, Any] = {
        "photometric": "MONOCHROME2",
        "bits_stored": 8 * stored.dtype.itemsize,
        "signed": stored.dtype.kind == "i",
        "modality": ModalityTransform(),
        "voi": None,
        "padding": None,
        "palette": None,
        "aspect": 1.0,
    }
    return Frame(stored, Display(**(values | changes)))


@pytest.mark.parametrize("function", list(WindowFunction))
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500.5), (2, 2), (127.5, 255)])
def test_windows_equal_pydicoms(function: WindowFunction, centre: float, width: float) -> None:
    """LINEAR, LINEAR_EXACT and SIGMOID give pydicom's values (PS3.3 C.11.2.1.2 and C.11.2.1.3), rounded to 8 bits."""
    stored = np.arange(-2000, 3000, dtype=np.int16)
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, str(function)
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 16, 1
    dataset.BitsAllocated = 16
    with np.errstate(over="ignore"):
        expected = apply_windowing(stored, dataset)
    expected = (expected + 32768) / 65535 * 255
    assert np.abs(window_values(stored, Window(centre, width, function)) - expected).max() < 0.52


def test_a_linear_window_of_one_is_a_threshold() -> None:
    """With a width of 1 the equation leaves black at or below centre - 0.5 and white above."""
    levels = window_values(np.array([9.0, 9.5, 9.6, 10]), Window(10, 1))
    assert levels.tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_tables_and_direct_computation_agree(kind: Any) -> None:
    """The look-up by stored value gives what the equations give, for every type and sign, but for how 42.5 is rounded."""
    stored = np.linspace(-100 if np.dtype(kind).kind != "u" else 0, 120, 100).astype(kind).reshape(10, 10)
    made = frame(stored, modality=ModalityTransform(2, -30), voi=Window(20, 150, WindowFunction.LINEAR_EXACT))
    expected = window_values(stored.astype(float) * 2 - 30, Window(20, 150, WindowFunction.LINEAR_EXACT))
    difference = np.abs(grey_levels(made).astype(int) - expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 2


def test_monochrome1_is_inverted() -> None:
    """In MONOCHROME1 the lowest value is white."""
    stored = np.array([[0, 128, 255]], np.uint8)
    assert grey_levels(frame(stored)).tolist() == [[0, 128, 255]]
    assert grey_levels(frame(stored, photometric="MONOCHROME1", inverted=True)).tolist() == [[255, 127, 0]]


def test_float_pixels_take_a_linear_window_exactly() -> None:
    """A float image with the window 0.5 / 1 shows grey levels and not a threshold."""
    stored = np.array([[0, 0.25, 0.5, 1]], np.float32)
    assert grey_levels(frame(stored, voi=Window(0.5, 1))).tolist() == [[0, 64, 128, 255]]


def test_voi_table_scales_to_its_bits() -> None:
    """A VOI table of 10 bits goes from 0 to 1023."""
    table = LookUpTable.from_data((4, 10, 10), [0, 341, 682, 1023])
    stored = np.array([[0, 10, 11, 12, 13, 99]], np.uint16)
    assert grey_levels(frame(stored, voi=table)).tolist() == [[0, 0, 85, 170, 255, 255]]


def test_percentiles_do_not_count_padding() -> None:
    """Without a window the percentiles of what was measured give one; padding would make the rest one grey."""
    stored = np.full((100, 100), -30000, np.int16)
    stored[:20, :20] = np.linspace(100, 200, 400).astype(np.int16).reshape(20, 20)
    levels = grey_levels(frame(stored, padding=Padding(-30000, -30000)))
    assert np.ptp(levels[:20, :20].astype(int)) > 240
    assert (levels[30:, 30:] == 0).all()


def test_percentile_window_of_little_content_shows_it() -> None:
    """Where nearly all is one value the window spans what differs; where all is one value it is still a window."""
    values = np.zeros(100_000)
    values[:10] = 50
    window = percentile_window(values)
    assert (window.centre, window.width) == (25, 50)
    assert percentile_window(np.full(10, 7.0)).width == 1
    assert percentile_window(np.array([])).width > 0


@pytest.mark.parametrize("top", [255, 65280])
def test_palette_entries_of_8_and_16_bits(top: int) -> None:
    """Entries of 16 bits are scaled down; entries that are 8-bit in spite of the descriptor are taken as they are."""
    tables = [LookUpTable.from_data((2, 0, 16), entries) for entries in ([0, top], [top, 0], [0, 0])]
    stored = np.array([[0, 1]], np.uint8)
    rgb = colours(frame(stored, photometric="PALETTE COLOR", palette=Palette(*tables)))
    assert rgb.tolist() == [[[0, 255, 0], [255, 0, 0]]]


def test_colours_of_16_bits_are_scaled_down() -> None:
    """RGB of 12 bits stored in 16."""
    stored = np.array([[[0, 2048, 4095]]], np.uint16)
    assert colours(frame(stored, photometric="RGB", bits_stored=12)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("kind", [np.uint32, np.int32, np.uint64])
def test_wide_values_keep_their_last_digits(kind: Any) -> None:
    """A ramp of 200 steps far from nought is a ramp of grey, though a float32 would see eight of them as one."""
    stored = (np.arange(200).reshape(10, 20) + (1 << 30)).astype(kind)
    levels = grey_levels(frame(stored))
    assert len(np.unique(levels)) > 190
    assert (np.diff(levels.ravel().astype(int)) >= 0).all()


def test_numbers_that_no_float32_holds_are_shown() -> None:
    """Doubles of 1e300 neither warn nor become one level."""
    levels = grey_levels(frame(np.linspace(0, 1e300, 256).reshape(16, 16)))
    assert np.abs(levels.ravel().astype(int) - np.arange(256)).max() <= 4


def test_a_table_knows_no_numbers_with_a_fraction() -> None:
    """The nearest entry is taken; NaN is the first, and the infinities are the ends."""
    table = LookUpTable.from_data((4, 10, 8), [40, 80, 120, 255])
    stored = np.array([[np.nan, -np.inf, 10.9, 12.4, 1e30, np.inf]], np.float32)
    assert grey_levels(frame(stored, voi=table)).tolist() == [[40, 40, 80, 120, 255, 255]]


def test_padding_of_a_ct_is_air() -> None:
    """Padding far off the scale of tissue is black and not white, and what might be tissue is left."""
    stored = np.array([[63536, 1064, 0]], np.uint16)
    made = frame(stored, modality=ModalityTransform(1, -1024), voi=Window(40, 400))
    assert grey_levels(made)[0, 0] == 255
    padded = replace(made.display, air=Padding(63536, 63536))
    assert grey_levels(Frame(stored, padded)).tolist() == [[0, 128, 0]]
    tissue = replace(made.display, air=Padding(1064, 1064))
    assert grey_levels(Frame(stored, tissue))[0, 1] == 128


def test_percentiles_of_a_sample_are_those_of_the_image() -> None:
    """Large images are sampled over both sides; where the sample sees one value only, every pixel counts."""
    stored = np.broadcast_to(np.arange(2000, dtype=np.uint16) * 10, (1000, 2000))
    window = usual_window([frame(np.ascontiguousarray(stored))])
    assert window.centre - window.width / 2 == pytest.approx(200, abs=60)
    assert window.centre + window.width / 2 == pytest.approx(19_900, abs=60)
    dot = np.zeros((1000, 1000), np.uint16)
    dot[501, 503] = 900
    assert grey_levels(frame(dot))[501, 503] == 255


@pytest.mark.parametrize(
    ("stored", "changes", "bytes_each"),
    [
        (np.zeros((4096, 2048), np.uint16), {"voi": Window(100, 200)}, 2),
        (np.zeros((4096, 2048), np.uint32), {"voi": Window(100, 200)}, 2),
        (np.zeros((4096, 2048), np.uint16), {}, 2),
        (np.zeros((4096, 2048), np.uint8), {"photometric": "PALETTE COLOR", "palette": GREY_PALETTE}, 5),
    ],
)
def test_large_pictures_take_little_memory(stored: Any, changes: dict[str, Any], bytes_each: float) -> None:
    """Beside the picture itself only a block of intermediate values: a child has bounds, and a tile has 268 Mpx."""
    made = frame(stored, **changes)
    tracemalloc.start()
    try:
        (grey_levels if "palette" not in changes else colours)(made)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = 40 << 20
    assert peak < stored.size * bytes_each + blocks
