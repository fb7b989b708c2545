"""The quality gate: what is unlikely about a segmentation. Warnings, one line each, and never a failure.

A flag says that somebody should look. It may be the model's error, the image's (mirrored, cut), or the patient's own
anatomy: a removed kidney is missing, an enlarged spleen is out of range. `docs/quality-gate.md` says what each means.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any

from voxelmill_segment.sides import split_side
from voxelmill_segment.usual import (
    MIDLINE,
    NEIGHBOURS,
    RIGHT_OF,
    ROWS,
    is_whole,
    least_share,
    usual_range,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from voxelmill_segment.statistics import SegmentStatistics

    Check = Callable[[dict[str, SegmentStatistics]], Iterator["Flag"]]

_MOST_NAMED = 8
_WRONG_SIDE_MM = 10.0
"""How far beyond the midline something may lie without its partner telling: a tumour shifts what it grows beside."""
_CUT_SHARE = 0.5
"""Of what the edge of the volume has cut, the rest may be in pieces: only half the usual share is asked for."""
_LEAST_ML = 1.0
"""A neighbour is there if it has so much: a stray speck is none."""


class FlagCode(StrEnum):
    """The kinds of flags."""

    NOTHING = "nothing-found"
    MISSING = "missing"
    CUT = "cut-by-border"
    SIDES = "sides-swapped"
    MIRRORED = "mirrored"
    RANGE = "volume-out-of-range"
    FRAGMENTED = "fragmented"


@dataclass(frozen=True, slots=True)
class Flag:
    """One finding.

    Parameters
    ----------
    code
        What kind of finding.
    segments
        The names of the segments that it is about.
    line
        One line for people.
    """

    code: FlagCode
    segments: tuple[str, ...]
    line: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "code": str(self.code), "segments": list(self.segments)}


def check(statistics: Sequence[SegmentStatistics]) -> tuple[Flag, ...]:
    """Return what is unlikely about a segmentation; nothing where nothing is.

    Parameters
    ----------
    statistics
        Of every segment that was asked for, also those without voxels. Volumes in millilitres, places in the patient's
        LPS system.
    """
    segments = {one.name: one for one in statistics}
    if segments and not any(one.voxels for one in statistics):
        names = tuple(segments)
        return (Flag(FlagCode.NOTHING, names, f"nothing was found of what was asked for: {_listed(names)}"),)
    checks: tuple[Check, ...] = (_missing, _cut, _sides, _mirrored, _out_of_range, _fragmented)
    return tuple(flag for one in checks for flag in one(segments))


def _missing(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    def there(name: str) -> bool:
        return name in segments and segments[name].volume_ml >= _LEAST_ML

    why: dict[str, str] = {}
    for name, neighbours in NEIGHBOURS:
        if name in segments and not segments[name].voxels and all(there(one) for one in neighbours):
            why.setdefault(name, f"{name} beside {' and '.join(neighbours)}")
    for row in ROWS:
        found = [place for place, name in enumerate(row) if name in segments and segments[name].voxels]
        if found:
            between = [name for name in row[found[0] : found[-1]] if name in segments and not segments[name].voxels]
            why.update({name: f"{name} between its neighbours" for name in between})
    if why:
        yield Flag(
            FlagCode.MISSING, tuple(why), f"nothing was found of {_listed(why.values())}: removed, or overlooked"
        )


def _cut(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    cut = {
        one.name: f"{one.name} ({' '.join(one.border_faces)})"
        for one in segments.values()
        if one.touches_border and is_whole(one.name)
    }
    if cut:
        line = f"cut by the edge of the volume, so their volumes are parts: {_listed(cut.values())}"
        yield Flag(FlagCode.CUT, tuple(cut), line)


def _sides(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    middle = [one.centroid_mm[0] for one in segments.values() if one.centroid_mm and MIDLINE.fullmatch(one.name)]
    pairs: dict[str, dict[str, SegmentStatistics]] = defaultdict(dict)
    for one in segments.values():
        stem, side = split_side(one.name)
        if side and one.centroid_mm and not stem.startswith("heart_"):  # chambers lie behind, not beside each other
            pairs[re.sub(r"_fdi\d+$", "", stem)][side] = one
    wrong: list[str] = []
    compared = 0
    for pair in pairs.values():
        if len(pair) == 2:
            compared += 1
            if _left_of(pair["left"], _place(pair["right"])) < 0:
                wrong += [pair["left"].name, pair["right"].name]
        elif middle:
            compared += 1
            ((side, one),) = pair.items()
            beyond = _left_of(one, median(middle)) * (1 if side == "left" else -1)
            if beyond < -_WRONG_SIDE_MM:
                wrong.append(one.name)
    if wrong:
        most = len({split_side(name)[0] for name in wrong}) > compared / 2
        may = ": the volume may be mirrored" if most and compared > 1 else ""
        yield Flag(FlagCode.SIDES, tuple(wrong), f"on the wrong side of the body: {_listed(wrong)}{may}")


def _mirrored(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    for right, left in RIGHT_OF:
        one, other = segments.get(right), segments.get(left)
        if one and other and one.centroid_mm and other.centroid_mm and _left_of(one, _place(other)) > 0:
            line = f"{right} lies left of {left}: the volume is mirrored, or the patient's organs are (situs inversus)"
            yield Flag(FlagCode.MIRRORED, (right, left), line)
            return  # the others would say the same


def _out_of_range(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    found: dict[str, str] = {}
    for one in segments.values():
        usual = usual_range(one.name)
        if usual is None or not one.voxels:
            continue
        if one.volume_ml > usual.high or (one.volume_ml < usual.low and not one.touches_border):
            found[one.name] = f"{one.name} {one.volume_ml:.3g} mL ({usual.low:g} to {usual.high:g})"
    if found:
        line = f"outside the usual range of an adult's volumes: {_listed(found.values())}"
        yield Flag(FlagCode.RANGE, tuple(found), line)


def _fragmented(segments: dict[str, SegmentStatistics]) -> Iterator[Flag]:
    found: dict[str, str] = {}
    for one in segments.values():
        least = least_share(one.name) * (_CUT_SHARE if one.touches_border else 1.0)
        if one.largest_component is not None and one.largest_component < least:
            share = f"largest of {one.components} parts {100 * one.largest_component:.0f} %"
            found[one.name] = f"{one.name} ({share})"
    if found:
        yield Flag(FlagCode.FRAGMENTED, tuple(found), f"in pieces: {_listed(found.values())}")


def _place(one: SegmentStatistics) -> float:
    """Return where a segment lies between right and left, millimetres to the left."""
    return one.centroid_mm[0] if one.centroid_mm else 0.0


def _left_of(one: SegmentStatistics, place: float) -> float:
    """Return how many millimetres a segment lies left of a place."""
    return _place(one) - place


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest
