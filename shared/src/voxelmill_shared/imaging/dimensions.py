"""Which frames at one place belong to which volume: time points, echoes, b-values and what else a series repeats.

An attribute tells volumes apart only where it leaves nothing open: with it no position is held twice, and it makes as
few volumes as there are images at the fullest position. Where no attribute and no three together do that, the order
in time may: if at every position the images can be put in order, and the first of every position were all made before
the second of any, then the first are one volume. Nothing is guessed beyond that.
"""

from __future__ import annotations

import contextlib
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.image import HEADER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from voxelmill_shared.imaging.geometry import FramePlane
    from voxelmill_shared.imaging.image import DicomImage

Part = tuple[str, "list[FramePlane]"]
"""What distinguishes a volume, as text for people (`EchoTime 4.92`), and its frames."""

_KEYWORDS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime", "EffectiveEchoTime",
    "DiffusionBValue", "DiffusionGradientOrientation", "InversionTime", "InversionTimes", "FlipAngle", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase", "ImageType", "FrameType",
    "ComplexImageComponent", "AcquisitionNumber", "FrameAcquisitionNumber", "ConvolutionKernel", "KVP",
    "AcquisitionDateTime", "AcquisitionTime", "FrameReferenceDateTime", "FrameReferenceTime", "ContentTime",
)  # fmt: skip
"""What may tell volumes apart by being equal within each, the most telling first (PS3.3 C.7.6.16.2, C.8.3, C.8.13)."""

_ORDERED = (
    "TriggerTime", "NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase", "FrameReferenceTime",
    "FrameReferenceDateTime", "FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime",
    "InstanceNumber",
)  # fmt: skip
"""What may tell them apart by coming in order."""
_READ = frozenset(_KEYWORDS + _ORDERED)
_SPATIAL = frozenset({0x00209056, 0x00209057, 0x00200032, 0x00200037, 0x00209113, 0x00209116})
"""Dimension indices that say where a frame lies: stack, place in the stack, position, orientation."""
_MOST_TOGETHER = 3
_LEAST_EVEN = 3
"""Two slices are even at any distance."""


def tell_apart(
    planes: Sequence[FramePlane], numbers: NDArray[np.int64], images: Sequence[DicomImage]
) -> list[Part] | None:
    """Divide frames into volumes in which no position is held twice.

    Parameters
    ----------
    planes
        The frames, all of one orientation.
    numbers
        The number of each one's position.
    images
        The images that they are of.

    Returns
    -------
    list or None
        The volumes, sorted by what distinguishes them; None if nothing tells them apart.
    """
    read = [attributes_of(images[plane.image], plane.frame) for plane in planes]
    repeats = int(np.bincount(numbers).max())
    codes, values = _code(read, repeats)
    for together in range(1, _MOST_TOGETHER + 1):
        for chosen in combinations(codes, together):
            shape = [len(values[name]) for name in chosen]
            joint = np.ravel_multi_index([codes[name] for name in chosen], shape)
            if _tells(joint, numbers, repeats):
                parts = _divide(planes, joint)
                return [
                    (_label(chosen, values, np.unravel_index(code, shape)), frames) for code, frames in parts.items()
                ]
    return _in_order(planes, numbers, read, repeats)


def even_apart(
    planes: Sequence[FramePlane], images: Sequence[DicomImage], even: Callable[[list[FramePlane]], bool]
) -> list[Part] | None:
    """Divide frames of uneven positions into volumes that are even each, as two acquisitions that overlap are.

    The parameters and the answer are those of `tell_apart`; `even` says whether frames, in order, are an even stack.
    """
    read = [attributes_of(images[plane.image], plane.frame) for plane in planes]
    codes, values = _code(read, len(planes) // _LEAST_EVEN)
    for name, column in codes.items():
        parts = _divide(planes, column)
        if all(len(frames) >= _LEAST_EVEN and even(frames) for frames in parts.values()):
            return [(_label([name], values, [code]), frames) for code, frames in parts.items()]
    return None


def _code(read: Sequence[dict[str, Any]], most: int) -> tuple[dict[str, NDArray[np.int64]], dict[str, list[Any]]]:
    """Number the values of each attribute that has from 2 to `most`, the most telling attribute first."""
    codes: dict[str, NDArray[np.int64]] = {}
    values: dict[str, list[Any]] = {}
    names = dict.fromkeys(name for attributes in read for name in attributes)
    for name in sorted(names, key=lambda name: _KEYWORDS.index(name) if name in _KEYWORDS else len(_KEYWORDS)):
        if name in _ORDERED and name not in _KEYWORDS:
            continue
        column = [attributes.get(name) for attributes in read]
        distinct = sorted(set(column), key=_sort_key)
        if 1 < len(distinct) <= most:
            values[name] = distinct
            place = {value: code for code, value in enumerate(distinct)}
            codes[name] = np.array([place[value] for value in column])
    return codes, values


def _tells(joint: NDArray[np.intp], numbers: NDArray[np.int64], repeats: int) -> bool:
    if len(np.unique(joint)) != repeats:
        return False
    pairs = joint.astype(np.int64) * (int(numbers.max()) + 1) + numbers
    return len(np.unique(pairs)) == len(pairs)


def _divide(planes: Sequence[FramePlane], codes: NDArray[Any]) -> dict[int, list[FramePlane]]:
    parts: dict[int, list[FramePlane]] = {int(code): [] for code in np.unique(codes)}
    for plane, code in zip(planes, codes, strict=True):
        parts[int(code)].append(plane)
    return parts


def _label(chosen: Sequence[str], values: dict[str, list[Any]], place: Any) -> str:
    told = [(name, values[name][int(code)]) for name, code in zip(chosen, place, strict=True)]
    return ", ".join(f"{name} {_as_text(value)}" for name, value in told)


def _as_text(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, tuple):
        return "\\".join(_as_text(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_order(
    planes: Sequence[FramePlane], numbers: NDArray[np.int64], read: Sequence[dict[str, Any]], repeats: int
) -> list[Part] | None:
    """Divide frames by the order in which they were made, if that leaves nothing open."""
    if (np.bincount(numbers) != repeats).any():
        return None
    for name in _ORDERED:
        column = [attributes.get(name) for attributes in read]
        if None in column or len({type(value) for value in column}) > 1 or isinstance(column[0], tuple):
            continue
        _, codes = np.unique(np.array(column), return_inverse=True)
        order = np.lexsort((codes, numbers))
        ranked = codes[order].reshape(-1, repeats)  # positions by ranks
        if (ranked.max(axis=0)[:-1] >= ranked.min(axis=0)[1:]).any():
            continue
        ranks = np.empty(len(planes), np.intp)
        ranks[order] = np.tile(np.arange(repeats), len(ranked))
        return [
            (f"{name} from {_as_text(column[order[rank::repeats][np.argmin(ranked[:, rank])]])}", frames)
            for rank, frames in _divide(planes, ranks).items()
        ]
    return None


def _sort_key(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    return (1, value) if isinstance(value, float) else (2, _as_text(value))


def attributes_of(image: DicomImage, frame: int) -> dict[str, Any]:
    """Return what may distinguish a frame from others at its place: numbers, texts, or tuples of them.

    An element that cannot be read is absent.
    """
    found: dict[str, Any] = {}
    header = image.header
    for dataset in _frame_datasets(header, frame):
        _collect(dataset, found)
    with contextlib.suppress(*HEADER_ERRORS):
        _collect_dimensions(header, frame, found)
    return found


def _frame_datasets(header: Dataset, frame: int) -> Iterator[Dataset]:
    """Go through what describes a frame, the frame's own first: functional groups with one level within, data set."""
    for group in (
        *_items(header, "PerFrameFunctionalGroupsSequence")[frame : frame + 1],
        *_items(header, "SharedFunctionalGroupsSequence")[:1],
    ):
        for tag in group.keys():  # noqa: SIM118 - a data set gives its elements, and reads each
            for macro in _items(group, tag)[:1]:
                yield macro
                for inner in macro.keys():  # noqa: SIM118 - as above
                    yield from _items(macro, inner)[:1]
    yield header
    for diffusion in _items(header, "MRDiffusionSequence")[:1]:
        yield diffusion
        yield from _items(diffusion, "DiffusionGradientDirectionSequence")[:1]


def _items(dataset: Dataset, name: Any) -> list[Dataset]:
    """Return the items of a sequence; none if it is absent, no sequence, or cannot be read."""
    try:
        element = dataset[name]
        return list(element.value or []) if element.VR == "SQ" else []
    except HEADER_ERRORS:
        return []


def _collect(dataset: Dataset, found: dict[str, Any]) -> None:
    for keyword in _READ:
        if keyword in dataset and keyword not in found:
            try:
                value = _plain(dataset.get(keyword))
            except HEADER_ERRORS:
                continue
            if value is not None:
                found[keyword] = value


def _collect_dimensions(header: Dataset, frame: int, found: dict[str, Any]) -> None:
    own = (header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]
    content = own[0].get("FrameContentSequence") if own else None
    if not content:
        return
    indices = _plain(content[0].get("DimensionIndexValues"))
    pointers = [item.get("DimensionIndexPointer") for item in header.get("DimensionIndexSequence") or []]
    if isinstance(indices, tuple) and len(indices) == len(pointers):
        for n, (pointer, index) in enumerate(zip(pointers, indices, strict=True)):
            if pointer is not None and int(pointer) not in _SPATIAL:
                found[f"dimension {n + 1}"] = index


def _plain(value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):
        return float(value)
    return tuple(_plain(one) for one in value) or None
