"""Whether slices belong together that each are in their place: of one patient, one setting, one time point."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from judged import Frame

_SETTINGS = ("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "KVP")
_SAME_SETTING = 0.05
"""By how much of itself a setting may vary within a volume: some scanners write what they measured."""


def mixed(frames: Sequence[Frame], matched: set[int]) -> str:
    """Say why slices cannot be of one volume though each is in its place: two patients, or two settings."""
    if len({frames[number].attributes.get("PatientID") or "" for number in matched} - {""}) > 1:
        return "its slices are of several patients"
    for name in _SETTINGS:
        values = [float(frames[number].attributes.get(name) or "nan") for number in matched]
        if values and max(values) - min(values) > _SAME_SETTING * abs(max(values)):
            return f"its slices differ in {name}"
    return ""


def of_one_kind(frames: Sequence[Frame], inside: list[list[int]], chosen: list[list[int]]) -> bool:
    """Whether, where places hold several frames, the volume's are told from the others by the same attribute(s)."""
    crowded = [
        (place, found)
        for place, found in zip(inside, chosen, strict=True)
        if len(place) > 1 and len(found) < len(place)
    ]
    if not crowded:
        return True
    ranks = {
        number: str(rank)
        for place in inside
        for rank, number in enumerate(
            sorted(place, key=lambda n: (float(frames[n].attributes.get("InstanceNumber", "0") or 0), n))
        )
    }

    def told(number: int, names: tuple[str, ...]) -> tuple[str, ...]:
        attributes = {**frames[number].attributes, "rank": ranks[number]}
        return tuple(attributes.get(name, "") for name in names)

    names = sorted({name for place, _ in crowded for number in place for name in frames[number].attributes} | {"rank"})
    for few in (*((name,) for name in names), *combinations(names, 2)):
        common = set.intersection(*({told(number, few) for number in found} for _, found in crowded))
        for value in common:
            if all(
                not any(told(number, few) == value for number in place if number not in found)
                for place, found in crowded
            ):
                return True
    return False
