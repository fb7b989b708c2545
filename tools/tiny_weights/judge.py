"""How well a network does on phantoms that it has not seen, through the service's own model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiny_weights.anatomy import BONES, OTHERS, STRUCTURES
from tiny_weights.phantom import make_torso
from voxelmill_segment.equipment import Equipment
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.segmenter import TotalSegmentatorSegmenter
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import ModelName, Plan, Resolution

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tiny_weights.phantom import Torso

LUNGS = tuple(name for name in STRUCTURES if name.startswith("lung_"))


def labelled(weights: Path, resolution: Resolution, torso: Torso) -> npt.NDArray[np.uint8]:
    """Return what the task `total` finds in a phantom, in its own grid: uint8 (slices, rows, columns)."""
    segmenter = TotalSegmentatorSegmenter(Equipment(weights, "cpu"))
    plan = Plan(model=ModelName.TOTALSEGMENTATOR, resolution=resolution)
    return segmenter.segment(Volume(torso.voxels, torso.affine, "CT"), plan, lambda _: None).labels


def dice(found: npt.NDArray[np.uint8], torso: Torso, names: tuple[str, ...]) -> float:
    """Return how well some structures were found, taken as one: 2 |A and B| / (|A| + |B|); NaN if neither is there."""
    number = {name: label for label, name in library.classes("total").items()}
    labels = [number[name] for name in names]
    ours, truth = np.isin(found, labels), np.isin(torso.classes(number), labels)
    both = int(ours.sum()) + int(truth.sum())
    return 2.0 * int((ours & truth).sum()) / both if both else float("nan")


def report(weights: Path, resolution: Resolution, seeds: range) -> list[str]:
    """Return lines with the mean Dice of structures over held-out phantoms of the network's own spacing."""
    (model,) = library.networks("total", resolution)
    groups = {"bones": BONES, "lungs": LUNGS} | {name: (name,) for name in OTHERS}
    scores: dict[str, list[float]] = {name: [] for name in groups}
    for seed in seeds:
        torso = make_torso(seed, model.spacing or (1.5, 1.5, 1.5))
        found = labelled(weights, resolution, torso)
        for name, members in groups.items():
            scores[name].append(dice(found, torso, members))
    means = {name: float(np.nanmean(values)) for name, values in scores.items() if not np.all(np.isnan(values))}
    return [f"Dice {value:.3f}  {name}" for name, value in means.items()]
