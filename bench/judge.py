"""Whether a volume is right: judged voxel by voxel against what was acquired, in the patient's own space.

A volume is right if every voxel of every acquired slice within it lies where that slice's own header says, within
`PLACE_MM`, and has its value, within half a stored step and `VALUE`. How a tool sorts, flips or turns its axes does not
matter. A volume that was resampled has no voxels at the slices' places; it is interpolated there, and is right if
nearly all values lie within those around them and if no shift against the acquired slice can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from judged import PLACE_MM, Candidate, Frame, Line, Verdict, exact
from mixing import mixed, of_one_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WITHIN = 0.98
"""The part of a resampled slice's values that must lie within their neighbours'. Smoothed noise leaves some out."""
_SHIFT = np.array([0.1, 0.1, 0.25])
"""How far a resampled slice may seem to be shifted: along rows and columns in its own pixels, along the normal in gaps.
There linear interpolation between slices of uneven distances, which is right, measures up to 0.15."""
_SMOOTHING = 1.5
_RIM = 3
_FAULTS = 3
"""After so many wrong slices the rest is not looked at."""
_INTERPOLATED = 0.3
"""How far an interpolated slice may be from linear interpolation, as a part of how far its neighbours differ (RMS). The
wrong one of the two is off by a half."""
_SAME_PLACE_MM = 5e-3
_DIRECTION = 1e-3


@dataclass(slots=True)
class _Trial:
    """A volume against the frames of one kind."""

    right: bool = True
    resampled: bool = False
    matched: set[int] = field(default_factory=set)
    error: float = float("nan")
    why: str = ""
    share: float = 0.0

    def fail(self, why: str) -> None:
        self.right = False
        self.why = self.why or why


def judge(candidates: Sequence[Candidate], frames: Sequence[Frame]) -> Verdict:
    """Judge all volumes that a tool made of one series: one that is wrong makes the whole wrong."""
    if not frames or not candidates or any(candidate.voxels.ndim != 3 for candidate in candidates):
        return Verdict("unjudged", of=len(frames))
    kinds = _kinds(frames)
    matched: set[int] = set()
    errors: list[float] = []
    resampled = False
    for number, candidate in enumerate(candidates):
        trials = [_try(candidate, frames, kind) for kind in kinds]
        best = max(trials, key=lambda trial: (trial.right, trial.share, len(trial.matched)))
        errors.append(best.error)
        if not best.right:
            which = f"volume {number + 1} of {len(candidates)}: " if len(candidates) > 1 else ""
            return Verdict("wrong", len(matched), len(frames), _largest(errors), which + best.why)
        resampled = resampled or best.resampled
        matched |= best.matched
    return Verdict("resampled" if resampled else "right", len(matched), len(frames), _largest(errors))


def holds_volume(frames: Sequence[Frame]) -> bool:
    """Whether two parallel frames of one size lie at different places: less is no volume, whatever a reader says."""
    return any(len(_places(frames, kind)) > 1 for kind in _kinds(frames))


def _largest(errors: list[float]) -> float:
    known = [error for error in errors if not np.isnan(error)]
    return max(known) if known else float("nan")


def _kinds(frames: Sequence[Frame]) -> list[list[int]]:
    """Part frames that can be of one volume: same directions, same pixels."""
    kinds: list[list[int]] = []
    for number, frame in enumerate(frames):
        for kind in kinds:
            first = frames[kind[0]]
            scale = np.linalg.norm(first.column_step)
            if first.values.shape == frame.values.shape and all(
                np.abs(one - other).max() < _DIRECTION * scale
                for one, other in ((first.column_step, frame.column_step), (first.row_step, frame.row_step))
            ):
                kind.append(number)
                break
        else:
            kinds.append([number])
    return kinds


def _places(frames: Sequence[Frame], kind: list[int]) -> list[list[int]]:
    """Part the frames of a kind by place, in the order of the normal."""
    normal = frames[kind[0]].normal
    ordered = sorted(kind, key=lambda number: float(frames[number].origin @ normal))
    places: list[list[int]] = []
    for number in ordered:
        near = [
            place
            for place in places[-8:]
            if np.abs(frames[place[0]].origin - frames[number].origin).max() <= _SAME_PLACE_MM
        ]
        if near:
            near[0].append(number)
        else:
            places.append([number])
    return places


def _try(candidate: Candidate, frames: Sequence[Frame], kind: list[int]) -> _Trial:
    trial = _Trial()
    places = _places(frames, kind)
    inside = [place for place in places if _part_inside(candidate, frames[place[0]]) > 0.5]
    if not inside:
        trial.fail("it lies elsewhere than every acquired slice")
        return trial
    inside = _claimed(candidate, frames, inside)
    on_grid = all(exact(candidate, frames[place[0]]) is not None for place in inside)
    chosen: list[list[int]] = []
    good = 0
    for place in inside:
        found = _match_place(candidate, frames, places, place, trial, on_grid=on_grid)
        chosen.append(found)
        good += bool(found)
        trial.matched.update(found)
        if len(chosen) - good > _FAULTS:
            break
    trial.share = good / len(inside)
    if trial.right:
        _check_slices(candidate, frames, [found[0] for found in chosen], trial)
    if trial.right and not of_one_kind(frames, inside, chosen):
        trial.fail("its slices are of several time points, echoes or copies")
    uids = {frames[number].attributes.get("FrameOfReferenceUID") for number in trial.matched}
    if 1 < len(uids) < len(trial.matched):  # one for each is what some anonymisers do; their positions can be compared
        trial.fail("its slices lie in several frames of reference, which nothing relates")
    why = mixed(frames, trial.matched)
    if why:
        trial.fail(why)
    return trial


def _claimed(candidate: Candidate, frames: Sequence[Frame], inside: list[list[int]]) -> list[list[int]]:
    """Return the places that a volume is to be judged by.

    Where each of its slices is an acquired one it says nothing of what was acquired between them, by another echo say.
    """
    held = [place for place in inside if exact(candidate, frames[place[0]]) is not None]
    if not held:
        return inside
    slices = {_slice_of(Line.of(candidate, frames[place[0]])) for place in held}
    axes = {axis for axis, _ in slices}
    return held if len(slices) == candidate.voxels.shape[2 - axes.pop()] else inside


def _slice_of(line: Line) -> tuple[int, int]:
    """Return the axis across a frame that lies along the other two, and the frame's index on it."""
    (axis,) = {0, 1, 2} - {int(np.abs(vector).argmax()) for vector in (line.column, line.row)}
    return axis, int(np.rint(line.start[axis]))


def _part_inside(candidate: Candidate, frame: Frame) -> float:
    rows, columns = frame.values.shape
    grid = np.meshgrid(np.linspace(0, columns - 1, 9), np.linspace(0, rows - 1, 9))
    indices = Line.of(candidate, frame).at(*grid)
    last = np.array(candidate.voxels.shape[::-1]).reshape(3, 1, 1) - 1
    near = (PLACE_MM / np.linalg.norm(candidate.affine[:3, :3], axis=0)).reshape(3, 1, 1)
    return float(((indices >= -near) & (indices <= last + near)).all(axis=0).mean())


def _match_place(
    candidate: Candidate,
    frames: Sequence[Frame],
    places: list[list[int]],
    place: list[int],
    trial: _Trial,
    *,
    on_grid: bool,
) -> list[int]:
    """Return which of the frames at a place the volume holds.

    In a volume whose voxels are all where slices were acquired (`on_grid`) nothing was interpolated.
    """
    reasons, found = [], []
    for number in place:
        frame = frames[number]
        cut = exact(candidate, frame)
        if cut is not None:
            error = _difference(frame, cut)
            if error <= frame.tolerance:
                found.append(number)
                trial.error = float(np.nanmax([trial.error, error]))
                continue
            if on_grid:
                reasons.append((0, f"values are off by up to {error:g}"))
                continue
        why = _resampled(candidate, frames, places, place, number)
        if why:
            reasons.append((1, why))
        else:
            found.append(number)
            trial.resampled = True
    if not found:
        height = float(frames[place[0]].origin @ frames[place[0]].normal)
        trial.fail(f"at {height:.2f} mm {min(reasons)[1]}")
    return found


def _misplaced(candidate: Candidate, frame: Frame) -> str:
    """Say how far a slice lies from where it was acquired, if its values are all there."""
    for number in range(-2, 3):  # from the place of the last slice to that of the next but one
        moved = Frame(
            frame.values,
            frame.origin + number * candidate.affine[:3, 2],
            frame.column_step,
            frame.row_step,
            frame.measured,
        )
        cut = exact(candidate, moved, place_mm=np.inf)
        if cut is not None and _difference(frame, cut) <= frame.tolerance:
            line = Line.of(candidate, moved)
            whole = Line(np.rint(line.start), np.rint(line.column), np.rint(line.row))
            off = np.linalg.norm(candidate.affine[:3, :3] @ whole.start + candidate.affine[:3, 3] - frame.origin)
            if off > PLACE_MM:
                return f"the slice lies {off:.2f} mm from where it was acquired"
    return ""


def _difference(frame: Frame, cut: NDArray[Any]) -> float:
    difference = np.abs(cut.astype(np.float64) - frame.values)
    if frame.measured is not None:
        difference = difference[frame.measured]
    difference = np.nan_to_num(difference, nan=np.inf)
    return float(difference.max(initial=0))


def _resampled(
    candidate: Candidate, frames: Sequence[Frame], places: list[list[int]], place: list[int], number: int
) -> str:
    """Return why a volume that has no voxels at a frame's pixels is wrong there, or nothing."""
    frame = frames[number]
    rows, columns = frame.values.shape
    line = Line.of(candidate, frame)
    size = np.array(candidate.voxels.shape[::-1]).reshape(3, 1, 1)
    indices = line.at(*np.meshgrid(np.arange(columns, dtype=float), np.arange(rows, dtype=float)))
    there = ((indices >= -0.01) & (indices <= size - 0.99)).all(axis=0)
    if frame.measured is not None:
        there &= frame.measured
    # At the rim a resampling tool may have mixed in what lies outside of the slice.
    there = np.asarray(ndimage.binary_erosion(np.asarray(there, np.bool_), iterations=_RIM), np.bool_)
    if there.mean() < 0.5:
        return "half of the slice is not in the volume"
    values = ndimage.map_coordinates(
        candidate.voxels.astype(np.float32, copy=False), indices[::-1], order=1, mode="nearest"
    )
    at = places.index(place)
    rank = place.index(number)
    around = [frames[places[k][min(rank, len(places[k]) - 1)]] for k in (at - 1, at + 1) if 0 <= k < len(places)]
    if np.ptp(frame.values) > 10 * frame.tolerance and not any(_same(frame, other) for other in around):
        why = _misplaced(candidate, frame)
        if why:  # what is there untouched was not resampled
            return why
    spread = 2 if _shifted_within(line) else 1
    low = ndimage.minimum_filter(frame.values, 2 * spread + 1)
    high = ndimage.maximum_filter(frame.values, 2 * spread + 1)
    for other in around:
        low, high = np.minimum(low, other.values), np.maximum(high, other.values)
    within = ((values >= low - frame.tolerance) & (values <= high + frame.tolerance))[there]
    if within.mean() < _WITHIN:
        return f"{1 - within.mean():.1%} of the interpolated values are not between those around them"
    shift = _shift(frame, values, around, there)
    if (np.abs(shift) > _SHIFT[: len(shift)]).any():
        text = ", ".join(f"{part:+.2f}" for part in shift)
        return f"the interpolated slice is shifted by {text} (columns, rows, gaps)"
    return ""


def _same(frame: Frame, other: Frame) -> bool:
    return bool(np.abs(frame.values - other.values).max() <= 2 * frame.tolerance)


def _shifted_within(line: Line) -> bool:
    """Whether a frame's pixels lie between voxels of the slice itself, and not only between slices."""
    return bool(np.abs(line.start - np.rint(line.start))[:2].max() > 0.05)


def _shift(frame: Frame, values: NDArray[Any], around: list[Frame], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Measure by least squares how far a slice has been moved: in pixels, and in gaps along the normal.

    Both slices are smoothed first: what interpolation takes from the finest detail would count as movement else.
    """

    def smooth(image: NDArray[Any]) -> NDArray[np.float64]:
        # Padding is left out of the smoothing too.
        weight = ndimage.gaussian_filter(there.astype(np.float64), _SMOOTHING)
        filtered = ndimage.gaussian_filter(np.where(there, image, 0).astype(np.float64), _SMOOTHING)
        return np.asarray(filtered / np.maximum(weight, 1e-3), np.float64)

    own, other = smooth(frame.values), smooth(values)
    middle = (own + other) / 2
    gradients = [np.gradient(middle, axis=axis) for axis in (1, 0)]
    if len(around) == 2:
        gradients.append((smooth(around[1].values) - smooth(around[0].values)) / 2)
    columns = np.stack([gradient[there] for gradient in gradients], axis=1)
    solution, *_ = np.linalg.lstsq(columns, (other - own)[there], rcond=None)
    return np.asarray(solution, np.float64)


def _check_slices(candidate: Candidate, frames: Sequence[Frame], found: list[int], trial: _Trial) -> None:
    """Look at the slices that no acquired frame lies in: between two they may be interpolated, else be constant."""
    line = Line.of(candidate, frames[found[0]])
    if any(exact(candidate, frames[number]) is None for number in found):
        _check_ends(candidate, frames, found, trial)
        return
    axis, _ = _slice_of(line)
    voxels = np.moveaxis(candidate.voxels, 2 - axis, 0)
    held = sorted({_slice_of(Line.of(candidate, frames[number]))[1] for number in found})
    for k in sorted(set(range(len(voxels))) - set(held)):
        below = [h for h in held if h < k]
        above = [h for h in held if h > k]
        if not below or not above:
            if np.ptp(voxels[k]) > 0:
                trial.fail("it has slices where none was acquired")
                return
            continue
        if not _between(voxels, below[-1], k, above[0]):
            trial.fail("a slice where none was acquired is not what lies between its neighbours")
            return
        trial.resampled = True


def _check_ends(candidate: Candidate, frames: Sequence[Frame], found: list[int], trial: _Trial) -> None:
    """Look at the slices of a resampled volume: beyond the acquired ones there must be nothing but a constant."""
    normal = frames[found[0]].normal
    steps = np.abs(normal @ candidate.affine[:3, :3])
    axis = int((steps / np.linalg.norm(candidate.affine[:3, :3], axis=0)).argmax())
    heights = [float(frames[number].origin @ normal) for number in found]
    centre = (np.array(candidate.voxels.shape[::-1]) - 1) / 2
    voxels = np.moveaxis(candidate.voxels, 2 - axis, 0)
    for k, plane in enumerate(voxels):
        centre[axis] = k
        height = float(normal @ (candidate.affine[:3, :3] @ centre + candidate.affine[:3, 3]))
        beyond = max(min(heights) - height, height - max(heights))
        if beyond > 0.75 * steps[axis] and np.ptp(plane) > 0:
            trial.fail("it has slices where none was acquired")
            return


def _between(voxels: NDArray[Any], below: int, k: int, above: int) -> bool:
    """Whether a slice is about what linear interpolation between two others gives."""
    low, high = voxels[below].astype(np.float64), voxels[above].astype(np.float64)
    expected = low + (high - low) * ((k - below) / (above - below))
    off = float(np.sqrt(np.mean((voxels[k] - expected) ** 2)))
    return off <= _INTERPOLATED * float(np.sqrt(np.mean((high - low) ** 2))) + 1
