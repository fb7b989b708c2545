"""Hostile series from the pixels of a real one: what scanners, archives and anonymisers do to series."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import generate_uid

from slices import GAP, PET, SIDE, Slice, numbers, write, write_enhanced
from voxelmill_shared.imaging import read_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def base(source: Path) -> list[Slice]:
    """Take the middle of the slices of a real series, 128 x 128, 3 mm apart.

    What they are says nothing about the reader that took them: what is written is the truth from here on.
    """
    voxels = read_series(sorted(path for path in source.iterdir() if path.is_file())).voxels
    rows, columns = voxels.shape[1:]
    cut = voxels[:, rows // 2 - SIDE : rows // 2 + SIDE : 2, columns // 2 - SIDE : columns // 2 + SIDE : 2]
    cut = np.clip(cut, -1024, 3000)
    return [Slice(plane, np.array([-120.0, -130.0, 40.0 + GAP * k])) for k, plane in enumerate(cut)]


def make(source: Path, target: Path) -> dict[str, list[Path]]:
    """Write every variant into a folder of its own and return their files by name."""
    made = {}
    for name, variant in _VARIANTS.items():
        folder = target / name.replace(" ", "-").replace(",", "")
        folder.mkdir(parents=True)
        made[name] = variant(folder, base_of(source))
    return made


_BASES: dict[str, list[Slice]] = {}


def base_of(source: Path) -> list[Slice]:
    """Return a copy of the base, which is read once."""
    if str(source) not in _BASES:
        _BASES[str(source)] = base(source)
    return deepcopy(_BASES[str(source)])


def _shuffled(slices: list[Slice]) -> list[Slice]:
    order = np.random.default_rng(7).permutation(len(slices))
    return [slices[k] for k in order]


def _tilted(folder: Path, slices: list[Slice]) -> list[Path]:
    angle = np.radians(18)
    for one in slices:
        one.along_column = np.array([0, np.cos(angle), -np.sin(angle)])
    return write(folder, slices)


def _missing(*gone: int) -> Callable[[Path, list[Slice]], list[Path]]:
    return lambda folder, slices: write(folder, [one for k, one in enumerate(slices) if k not in gone])


def _copied(folder: Path, slices: list[Slice]) -> list[Path]:
    return write(folder, [*slices[:8], deepcopy(slices[7]), *slices[8:]])


def _all_copied(folder: Path, slices: list[Slice]) -> list[Path]:
    return write(folder, [*slices, *deepcopy(slices)])


def _copied_and_missing(folder: Path, slices: list[Slice]) -> list[Path]:
    return write(folder, [*slices[:12], deepcopy(slices[4]), *slices[13:]])


def _oblong(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices:
        one.more = {"PixelSpacing": numbers([2.0, 1.25])}
    return write(folder, slices)


def _prone(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices:
        one.along_row, one.along_column = np.array([-1.0, 0, 0]), np.array([0, -1.0, 0])
        one.position = one.position * [-1, -1, 1]
        one.more = {"PatientPosition": "HFP"}
    return write(folder, slices)


def _falling(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices:
        one.slope, one.intercept = -1.0, 3000.0
    return write(folder, slices)


def _rounded(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.position[2] = round(40 + 2.9375 * k, 1)
    return write(folder, slices)


def _two_frames_of_reference(folder: Path, slices: list[Slice]) -> list[Path]:
    other = generate_uid()
    for one in slices[10:]:
        one.more = {"FrameOfReferenceUID": other}
    return write(folder, slices)


def _two_patients(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices[10:]:
        one.more = {"PatientID": "another"}
    return write(folder, slices)


def _two_voltages(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.more = {"KVP": "140" if k % 2 else "80"}
    return write(folder, slices)


def _wavering(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.position = one.position + np.array([0.3 * (k % 2), 0, 0])
    return write(folder, slices)


def _contradicted(folder: Path, slices: list[Slice]) -> list[Path]:
    other = deepcopy(slices[7])
    other.values = np.flipud(other.values)
    return write(folder, [*slices[:8], other, *slices[8:]])


def _uneven(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.position[2] += 0.9 if k % 3 == 1 else 0.0
    return write(folder, slices)


def _two_spacings(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices[10:]:
        one.position[2] += one.position[2] - slices[9].position[2]
    return write(folder, slices)


def _crossed(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices[10:]):
        one.along_column = np.array([0, 0, -1.0])
        one.position = np.array([-120.0, -130 + GAP * k, 160])
    return write(folder, slices)


def _with_scout(folder: Path, slices: list[Slice]) -> list[Path]:
    scout = deepcopy(slices[0])
    scout.along_column = np.array([0, 0, -1.0])
    scout.position = np.array([-120.0, 0, 160])
    scout.more = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    return write(folder, [scout, *slices])


def _two_times(folder: Path, slices: list[Slice]) -> list[Path]:
    again = deepcopy(slices)
    for number, point in enumerate((slices, again), 1):
        for one in point:
            one.values = one.values + 20 * number
            one.more = {"AcquisitionNumber": number, "TemporalPositionIdentifier": number}
    return write(folder, [one for pair in zip(slices, again, strict=True) for one in pair])


def _two_times_untold(folder: Path, slices: list[Slice]) -> list[Path]:
    again = deepcopy(slices)
    for one in again:
        one.values = one.values[::-1] + 20
    mixed = _shuffled([*slices, *again])
    return write(folder, mixed)


def _pet(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.slope, one.intercept, one.bits_stored = 1 + 0.11 * k, 0.0, 16
        one.values = np.rint((one.values + 1024) / one.slope) * one.slope
    return write(folder, slices, "PT", PET)


def _intercepts(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.intercept, one.bits_stored = (-1024.0 if k % 2 else -2048.0), 16
    return write(folder, slices)


def _signed_and_not(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.signed = bool(k % 2)
        one.intercept = 0.0 if one.signed else -1024.0
        one.bits_stored = 16
    return write(folder, slices)


def _signed(bits: int) -> Callable[[Path, list[Slice]], list[Path]]:
    def variant(folder: Path, slices: list[Slice]) -> list[Path]:
        for one in slices:
            one.signed, one.intercept, one.bits_stored = True, 0.0, bits
            one.values = np.clip(one.values, -2048, 2047)
        return write(folder, slices)

    return variant


def _padded(folder: Path, slices: list[Slice]) -> list[Path]:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    outside = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 > (SIDE / 2) ** 2
    for one in slices:
        one.signed, one.intercept, one.bits_stored = True, 0.0, 16
        one.values = np.where(outside, -2000, one.values)
        one.more = {"PixelPaddingValue": -2000}
    return write(folder, slices)


def _reversed(folder: Path, slices: list[Slice]) -> list[Path]:
    return write(folder, slices[::-1])


def _feet_first(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices:
        one.along_row, one.position = np.array([-1.0, 0, 0]), one.position * [-1, 1, 1]
        one.more = {"PatientPosition": "FFS"}
    return write(folder, slices)


def _oblique(folder: Path, slices: list[Slice]) -> list[Path]:
    turn = np.linalg.qr(np.array([[0.9, 0.2, 0.1], [-0.3, 0.8, 0.4], [0.2, -0.5, 0.8]]))[0]
    turn *= np.sign(np.diag(turn))
    for one in slices:
        one.along_row, one.along_column = turn[:, 0], turn[:, 1]
        one.position = turn @ one.position
    return write(folder, _shuffled(slices))


def _shifting(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices[10:]:
        one.position[0] += 6
    return write(folder, slices)


def _two_pixel_spacings(folder: Path, slices: list[Slice]) -> list[Path]:
    for one in slices[10:]:
        one.more = {"PixelSpacing": numbers([1.5, 1.5])}
    return write(folder, slices)


def _enhanced(folder: Path, slices: list[Slice]) -> list[Path]:
    return write_enhanced(folder, slices)


def _enhanced_shuffled(folder: Path, slices: list[Slice]) -> list[Path]:
    return write_enhanced(folder, _shuffled(slices))


def _enhanced_slopes(folder: Path, slices: list[Slice]) -> list[Path]:
    for k, one in enumerate(slices):
        one.slope, one.intercept = (1.0, -1024.0) if k % 2 else (2.0, -2048.0)
        one.values = np.rint(one.values / 2) * 2
    return write_enhanced(folder, _shuffled(slices))


def _enhanced_missing(folder: Path, slices: list[Slice]) -> list[Path]:
    return write_enhanced(folder, _shuffled([*slices[:9], *slices[14:]]))


_VARIANTS: dict[str, Callable[[Path, list[Slice]], list[Path]]] = {
    "plain": write,
    "shuffled": lambda folder, slices: write(folder, _shuffled(slices)),
    "reversed order": _reversed,
    "feet first": _feet_first,
    "oblique, shuffled": _oblique,
    "gantry tilt of 18 degrees": _tilted,
    "one slice missing": _missing(9),
    "six slices missing in a row": _missing(7, 8, 9, 10, 11, 12),
    "one slice copied": _copied,
    "every slice copied": _all_copied,
    "one slice copied in place of another": _copied_and_missing,
    "two different slices at one place": _contradicted,
    "oblong pixels": _oblong,
    "prone": _prone,
    "negative slope": _falling,
    "positions rounded to a tenth of a millimetre": _rounded,
    "two frames of reference": _two_frames_of_reference,
    "two patients": _two_patients,
    "two tube voltages, slice by slice": _two_voltages,
    "every other slice 0.3 mm aside": _wavering,
    "uneven spacing": _uneven,
    "two spacings": _two_spacings,
    "sideways step": _shifting,
    "two pixel spacings": _two_pixel_spacings,
    "two orientations": _crossed,
    "scout within": _with_scout,
    "two time points": _two_times,
    "two time points that nothing tells apart": _two_times_untold,
    "PET, slope per slice": _pet,
    "intercept per slice": _intercepts,
    "signed and unsigned slices": _signed_and_not,
    "signed 12 bits of 16": _signed(12),
    "signed 16 bits": _signed(16),
    "padding of -2000": _padded,
    "Enhanced CT": _enhanced,
    "Enhanced CT, shuffled": _enhanced_shuffled,
    "Enhanced CT, slope per frame, shuffled": _enhanced_slopes,
    "Enhanced CT, five frames missing": _enhanced_missing,
}
