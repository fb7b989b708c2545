"""From the images of a series to the groups of frames that may each be a volume.

A series may hold several: scouts beside slices, blocks of other orientation, time points, echoes. Each step here
divides groups by one thing that volumes cannot differ in, and notes what each group is told by. Nothing is decoded but
frames that may be copies of each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.dimensions import Part, attributes_of, even_apart, tell_apart
from voxelmill_shared.imaging.geometry import (
    DRIFT_TOLERANCE,
    MAX_MISSING_IN_A_ROW,
    SAME_POSITION_MM,
    FramePlane,
    parallel_groups,
    plane_of,
    rungs_of,
    same_heights,
    same_spacing,
)
from voxelmill_shared.imaging.image import HEADER_ERRORS
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from voxelmill_shared.imaging.image import DicomImage

    SameContent = Callable[[FramePlane, FramePlane], bool]

_LEAST_IN_BLOCK = 3
"""Two slices are even at any distance, so a block of its own spacing has at least three."""
_STEP_TOLERANCE = 0.05
_SAME_SETTING = 0.05
"""Settings that differ by no more than this part are one, as measured values of it."""
_SETTINGS = {
    "TemporalPositionIdentifier": ("", 0.0),
    "TemporalPositionIndex": ("FrameContentSequence", 0.0),
    "EchoTime": ("", _SAME_SETTING),
    "EffectiveEchoTime": ("MREchoSequence", _SAME_SETTING),
    "DiffusionBValue": ("MRDiffusionSequence", _SAME_SETTING),
    "KVP": ("CTXRayDetailsSequence", _SAME_SETTING),
}
"""What does not change within a volume, with the functional group that holds it (PS3.3 C.7.6.16, C.8.13, C.8.15) and by
how much it may vary."""

Told = tuple[tuple[str, str], ...]
"""By which fields a part of a series was told from the others, and by which values of them."""

FIELD_CODES = {
    "patient": Unsupported.MIXED_SERIES,
    "StudyInstanceUID": Unsupported.MIXED_SERIES,
    "SeriesInstanceUID": Unsupported.MIXED_SERIES,
    "Modality": Unsupported.MIXED_SERIES,
    "SOPClassUID": Unsupported.MIXED_SERIES,
    "ConvolutionKernel": Unsupported.REPEATED_POSITIONS,
    "FrameOfReferenceUID": Unsupported.MIXED_FRAMES_OF_REFERENCE,
    "size": Unsupported.MIXED_SIZES,
    "pixel spacing": Unsupported.MIXED_SIZES,
    "ImageType": Unsupported.MIXED_ORIENTATIONS,
    "StackID": Unsupported.MIXED_ORIENTATIONS,
    "orientation": Unsupported.MIXED_ORIENTATIONS,
    "block": Unsupported.UNEVEN_SPACING,
    "repeat": Unsupported.REPEATED_POSITIONS,
    **dict.fromkeys(_SETTINGS, Unsupported.MIXED_SERIES),
}
"""Why a series that is divided by a field is no single volume."""


@dataclass(frozen=True, eq=False)
class Group:
    """Frames that may be one volume. `told` says by what they were told from others: fields and their values."""

    planes: list[FramePlane]
    told: Told
    frame_of_reference_uid: str = ""
    warnings: tuple[str, ...] = ()

    def told_by(self, field: str, value: str) -> Group:
        """Return it with one field more."""
        return replace(self, told=(*self.told, (field, value)))


def by_image(images: Sequence[DicomImage], numbers: Sequence[int]) -> Iterator[tuple[Group, list[int]]]:
    """Divide images by what the whole of each says; the groups have no frames yet, only the numbers of their images."""
    texts = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPClassUID", "ConvolutionKernel")
    fields = ("patient", *texts, "size", "ImageType")
    patients = _patients(images, numbers)
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for n in numbers:
        image = images[n]
        localizer = "LOCALIZER" if "LOCALIZER" in image.text("ImageType").upper() else "other"
        size = f"{image.rows} x {image.columns}"
        groups[(patients[n], *(image.text(field) for field in texts), size, localizer)].append(n)
    for key in sorted(groups):
        told = tuple(zip(fields, key, strict=True))
        for uid, members, warnings in _by_frame_of_reference(images, groups[key]):
            yield Group([], (*told, ("FrameOfReferenceUID", uid)), uid, warnings), members


def _patients(images: Sequence[DicomImage], numbers: Sequence[int]) -> dict[int, str]:
    """Number the patients by Patient ID, which itself is told to nobody: `1 of 2`. Without an ID it is the only one.

    Of an ID only what is ASCII counts: the quick reader does not know the file's character set.
    """
    read = {n: images[n].text("PatientID").encode("ascii", "ignore").strip() for n in numbers}
    known = sorted(set(read.values()) - {b""}) or [b""]
    if len(known) > 1 and b"" in read.values():
        known.append(b"")
    return {n: f"{known.index(one) + 1 if one in known else 1} of {len(known)}" for n, one in read.items()}


def _by_frame_of_reference(
    images: Sequence[DicomImage], numbers: list[int]
) -> list[tuple[str, list[int], tuple[str, ...]]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for n in numbers:
        groups[images[n].text("FrameOfReferenceUID")].append(n)
    named = [uid for uid in groups if uid]
    if len(named) < 2:
        return [(named[0] if named else "", numbers, ())]
    if len(named) == len(numbers) > 2:
        # No scanner does this, and some anonymisers do: a fresh UID for every instance. The positions then tell.
        warning = "every instance has its own frame of reference (an anonymiser's doing); taken as one"
        return [("", numbers, (warning,))]
    return [(uid, groups[uid], ()) for uid in sorted(groups)]


def with_planes(group: Group, images: Sequence[DicomImage], members: Sequence[int]) -> Group:
    """Read where the frames lie. Sorted by position, so that the order of the files makes no difference.

    Raises
    ------
    UnsupportedSeriesError
        If one of them has no geometry, or one without sense: it might belong anywhere.
    """
    planes = [plane_of(images[n], n, frame) for n in members for frame in range(images[n].frames)]
    planes.sort(key=lambda plane: (plane.position.tolist(), plane.image, plane.frame))
    return replace(group, planes=planes)


def divide(group: Group, images: Sequence[DicomImage], same_content: SameContent) -> list[Group]:
    """Divide a group's frames by stack, orientation, spacing, repetition, setting and block."""
    groups = _by_stack(group, images)
    groups = [part for whole in groups for part in _by_orientation(whole)]
    groups = [part for whole in groups for part in _by_spacing(whole)]
    groups = [part for whole in groups for part in _by_repetition(whole, images, same_content)]
    groups = [part for whole in groups for part in _by_setting(whole, images)]
    return [part for whole in groups for part in _by_block(whole, images)]


def _by_stack(group: Group, images: Sequence[DicomImage]) -> list[Group]:
    """Divide the frames of Enhanced images by Stack ID (PS3.3 C.7.6.16.2.2.4)."""
    stacks: dict[str, list[FramePlane]] = defaultdict(list)
    for plane in group.planes:
        stacks[_stack_of(images[plane.image], plane.frame)].append(plane)
    if len(stacks) < 2:
        return [group]
    return [replace(group, planes=stacks[stack]).told_by("StackID", stack) for stack in sorted(stacks)]


def _stack_of(image: DicomImage, frame: int) -> str:
    try:
        content = image.functional_group(frame, "FrameContentSequence")
        return str((content.get("StackID") if content is not None else None) or "")
    except HEADER_ERRORS as error:
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{image.name}: its stacks cannot be read ({unquoted(error)})"
        ) from None


def _by_orientation(group: Group) -> list[Group]:
    parts = parallel_groups(sorted(group.planes, key=_cosines))
    if len(parts) == 1:
        return [group]
    return [
        replace(group, planes=part).told_by("orientation", "\\".join(f"{c:.4g}" for c in _cosines(part[0])))
        for part in parts
    ]


def _cosines(plane: FramePlane) -> list[float]:
    return [*plane.along_row.tolist(), *plane.along_column.tolist()]


def _by_spacing(group: Group) -> list[Group]:
    if all(plane.spacing == group.planes[0].spacing for plane in group.planes):
        return [group]
    parts: list[list[FramePlane]] = []
    for plane in sorted(group.planes, key=lambda plane: plane.spacing):
        if parts and same_spacing(plane.spacing, parts[-1][0].spacing):
            parts[-1].append(plane)
        else:
            parts.append([plane])
    if len(parts) == 1:
        return [group]
    return [
        replace(group, planes=part).told_by("pixel spacing", "\\".join(f"{mm:g}" for mm in part[0].spacing))
        for part in parts
    ]


def _sorted_along(planes: list[FramePlane]) -> tuple[list[FramePlane], Any]:
    heights = np.array([plane.position for plane in planes]) @ planes[0].normal
    order = np.argsort(heights, kind="stable")
    return [planes[k] for k in order], heights[order]


def _by_repetition(group: Group, images: Sequence[DicomImage], same_content: SameContent) -> list[Group]:
    """Divide frames that share positions into volumes that do not; copies are left out."""
    planes, heights = _sorted_along(group.planes)
    numbers = same_heights(heights)
    if numbers[-1] == len(planes) - 1:
        return [replace(group, planes=planes)]

    def same_instance(one: FramePlane, other: FramePlane) -> bool:
        uid = images[one.image].text("SOPInstanceUID")
        return bool(uid) and uid == images[other.image].text("SOPInstanceUID") and one.frame == other.frame

    def same_attributes(one: FramePlane, other: FramePlane) -> bool:
        return attributes_of(images[one.image], one.frame) == attributes_of(images[other.image], other.frame)

    warnings, copies = group.warnings, 0
    for alike in (same_instance, same_attributes):
        kept = _without_copies(planes, numbers, [alike, same_content])
        copies += len(planes) - len(kept)
        planes, numbers = [planes[k] for k in kept], numbers[kept]
        if copies:
            warnings = (*group.warnings, f"{copies} identical copies of slices were left out")
        whole = replace(group, planes=planes, warnings=warnings)
        if len(np.unique(numbers)) == len(planes):
            return [whole]
        parts = _side_by_side(planes, numbers) or tell_apart(planes, numbers, images)
        if parts:
            return [_part(whole, label, frames) for label, frames in parts]
    kept = _without_copies(planes, numbers, [same_content])
    if len(kept) == len(np.unique(numbers)):
        # No attribute tells volumes apart, and wherever two frames meet they are equal: either of them is right.
        copies += len(planes) - len(kept)
        left = (*group.warnings, f"{copies} identical copies of slices were left out")
        return [replace(group, planes=[planes[k] for k in kept], warnings=left)]
    return [whole]  # the stack refuses it, with the place


def _part(whole: Group, label: str, planes: list[FramePlane]) -> Group:
    part = replace(whole, planes=planes).told_by("repeat", label)
    if label.startswith("InstanceNumber"):
        return replace(part, warnings=(*part.warnings, "told from its neighbours in time by Instance Number alone"))
    return part


def _without_copies(planes: list[FramePlane], numbers: Any, conditions: Sequence[SameContent]) -> list[int]:
    """Return the places of the frames that are no copy of one before."""
    kept: list[int] = []
    for k, plane in enumerate(planes):
        beside = [n for n in kept[-int(np.sum(numbers == numbers[k])) :] if numbers[n] == numbers[k]]
        beside = [n for n in beside if np.abs(plane.position - planes[n].position).max() < SAME_POSITION_MM]
        if not any(all(alike(plane, planes[n]) for alike in conditions) for n in beside):
            kept.append(k)
    return kept


def _side_by_side(planes: list[FramePlane], numbers: Any) -> list[tuple[str, list[FramePlane]]] | None:
    """Divide parallel blocks at the same heights whose slices lie beside each other."""
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    flat = positions @ np.stack([first.along_row, first.along_column], axis=1)
    tolerance = DRIFT_TOLERANCE * min(first.spacing)
    centres: list[Any] = []
    codes = np.zeros(len(planes), int)
    for k, place in enumerate(flat):
        near = [n for n, centre in enumerate(centres) if np.abs(place - centre).max() <= tolerance]
        codes[k] = near[0] if near else len(centres)
        if not near:
            centres.append(place)
    unique = len(set(zip(codes.tolist(), numbers.tolist(), strict=True))) == len(planes)
    if len(centres) < 2 or len(centres) != np.bincount(numbers).max() or not unique:
        return None
    return [
        (f"in-plane position {n + 1}", [plane for plane, code in zip(planes, codes, strict=True) if code == n])
        for n in range(len(centres))
    ]


def _by_setting(group: Group, images: Sequence[DicomImage]) -> list[Group]:
    """Divide frames of different positions that were taken with different settings, two echoes between each other.

    Where each frame has a value of its own, or one of them none, it is no setting of volumes.
    """
    for keyword, (macro, tolerance) in _SETTINGS.items():
        read = [images[plane.image].number(plane.frame, keyword, macro) for plane in group.planes]
        known = [value for value in read if value is not None]
        starts = _starts(sorted(set(known)), tolerance)
        if len(known) < len(read) or not 1 < len(starts) <= len(read) / 2:
            continue
        codes = np.searchsorted(starts, np.array(known), side="right")
        parts = []
        for n, start in enumerate(starts, 1):
            planes = [plane for plane, code in zip(group.planes, codes, strict=True) if code == n]
            parts += _by_setting(replace(group, planes=planes).told_by(keyword, f"{start:g}"), images)
        return parts
    return _by_kind(group, images)


def _by_kind(group: Group, images: Sequence[DicomImage]) -> list[Group]:
    """Divide even stacks of other Image Types that lie between each other, water and fat half a gap apart."""
    kinds: dict[str, list[FramePlane]] = defaultdict(list)
    for plane in group.planes:
        kinds[images[plane.image].text("ImageType")].append(plane)
    parts = [(f"ImageType {kind}", kinds[kind]) for kind in sorted(kinds)]
    if len(parts) < 2 or any(len(planes) < _LEAST_IN_BLOCK or not _is_even(planes) for _, planes in parts):
        return [group]
    if not _overlap(_sorted_along(group.planes)[0], parts):
        return [group]
    return [_part(group, label, planes) for label, planes in parts]


def _starts(values: Sequence[float], tolerance: float) -> list[float]:
    """Return the least of each run of sorted values, in which each is nearly that before it."""
    return [*values[:1], *(two for one, two in pairwise(values) if two - one > tolerance * abs(two))]


def _by_block(group: Group, images: Sequence[DicomImage]) -> list[Group]:
    """Divide slices that are even in parts: blocks of another spacing, or apart from each other."""
    planes, heights = _sorted_along(group.planes)
    if len(planes) < 2 * _LEAST_IN_BLOCK or len(np.unique(same_heights(heights))) < len(planes):
        return [group]
    rungs = rungs_of(heights)
    if rungs is not None and (np.diff(rungs) - 1).max() <= MAX_MISSING_IN_A_ROW:
        return [group]
    runs = _even_runs(np.array([plane.position for plane in planes]))
    blocks = [planes[start:end] for start, end in runs]
    parts = even_apart(planes, images, _is_even)
    of_blocks = len(blocks) > 1 and min(map(len, blocks)) >= _LEAST_IN_BLOCK
    if parts and (_overlap(planes, parts) or (rungs is None and not of_blocks)):
        return [_part(group, label, frames) for label, frames in parts]
    if not of_blocks:
        return [group]
    if rungs is not None and not _acquired_apart(blocks, images):
        return [group]  # slices of one even stack, of which too many are missing
    return [
        replace(group, planes=block).told_by("block", f"{n + 1}, {heights[start]:.2f} to {heights[end - 1]:.2f} mm")
        for n, (block, (start, end)) in enumerate(zip(blocks, runs, strict=True))
    ]


def _overlap(planes: Sequence[FramePlane], parts: Sequence[Part]) -> bool:
    """Return whether frames of one part lie between those of another; `planes` are all of them, in order."""
    rank = {id(plane): k for k, plane in enumerate(planes)}
    ends = sorted((min(ranks), max(ranks)) for ranks in ([rank[id(plane)] for plane in part] for _, part in parts))
    return any(after[0] < before[1] for before, after in pairwise(ends))


def _is_even(planes: list[FramePlane]) -> bool:
    return rungs_of(_sorted_along(planes)[1]) is not None


def _even_runs(positions: Any) -> list[tuple[int, int]]:
    steps = np.diff(positions, axis=0)
    runs, start = [], 0
    while start < len(positions):
        end = start + 1
        while end < len(positions):
            first = steps[start]
            if np.linalg.norm(steps[end - 1] - first) > _STEP_TOLERANCE * np.linalg.norm(first):
                break
            end += 1
        runs.append((start, end))
        start = end
    return runs


def _acquired_apart(blocks: Sequence[list[FramePlane]], images: Sequence[DicomImage]) -> bool:
    """Return whether each block is an acquisition of its own."""
    numbers = [
        Counter(attributes_of(images[plane.image], plane.frame).get("AcquisitionNumber") for plane in block)
        for block in blocks
    ]
    if any(len(values) != 1 or None in values for values in numbers):
        return False
    return len({next(iter(values)) for values in numbers}) == len(blocks)
