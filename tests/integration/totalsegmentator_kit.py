"""What the tests of the model totalsegmentator share: small volumes, networks with random weights, and the package itself.

The package runs in a process of its own, as its users run it, and so do we: neither sees what the other has imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unit.segment.torso import torso
from voxelmill_shared.imaging.volume import Volume

if TYPE_CHECKING:
    from voxelmill_segment.totalsegmentator import library

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Networks of `total` at 3 and 6 mm that know some organs of the torso."""
HERE = Path(__file__).parent
LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)


@dataclass(frozen=True)
class Case:
    """One volume and one request, as we are asked (`plan`) and as the package is (`arguments`)."""

    name: str
    volume: Volume
    plan: dict[str, Any]
    arguments: dict[str, Any]
    split: bool = field(default=False)


def small_torso(step: int = 2) -> Volume:
    """The torso of the other tests, every second voxel of it: 32 x 42 x 54 voxels of 8 x 7 x 7 mm."""
    volume = torso()
    affine = volume.affine.copy()
    affine[:3, :3] *= step
    return Volume(np.ascontiguousarray(volume.voxels[::step, ::step, ::step]), affine, "CT")


def part_of(volume: Volume, *ranges: tuple[int, int]) -> Volume:
    """A part of a volume, by first and last + 1 of slices, rows and columns."""
    first = [start for start, _ in ranges][::-1]
    affine = volume.affine.copy()
    affine[:3, 3] = (affine @ [*first, 1])[:3]
    return Volume(np.ascontiguousarray(volume.voxels[tuple(slice(*one) for one in ranges)]), affine, volume.modality)


def oblique(volume: Volume, degrees: float) -> Volume:
    """The same voxels, acquired with a patient who lies askew."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.voxels, turn @ volume.affine, volume.modality)


def write_random_network(
    weights: Path, network: library.Network, *, folds: int = 1, spacing: tuple[float, float, float] | None = None
) -> None:
    """Write a network of random weights, with a window that small volumes need several of.

    Parameters
    ----------
    weights
        The weights folder.
    network
        Which.
    folds
        How many folds.
    spacing
        Millimetres along x, y, z that it is said to be trained at; by default those of its task.
    """
    from tiny_weights.layout import Shape, write_random_weights

    shape = Shape(spacing or network.spacing or (7.0, 7.0, 8.0), patch=(32, 40, 32), features=(3, 6))
    channel = "MR" if "MR" in network.folder else "CT"
    for fold in range(folds):
        seed = network.dataset * 3 + fold  # with these, every case has labels
        write_random_weights(weights, network, shape=shape, channel=channel, seed=seed, fold=fold)


def write_cases(folder: Path, cases: list[Case]) -> Path:
    """Write cases down for the two processes."""
    for case in cases:
        np.save(folder / f"{case.name}.npy", case.volume.voxels)
    document = [
        {**asdict(case), "volume": {"affine": case.volume.affine.tolist(), "modality": case.volume.modality}}
        for case in cases
    ]
    path = folder / "cases.json"
    path.write_text(json.dumps(document))
    return path


def start(script: str, cases: Path, weights: Path, home: Path) -> subprocess.Popen[bytes]:
    """Start one of the two processes; it writes `{name}.{script}.npy` beside each volume."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("VOXELMILL_", "nnUNet_"))},
        "HOME": str(home),
        "GOMP_SPINCOUNT": "0",  # two processes, each with a thread for every core: one that waits shall not spin
        "VOXELMILL_WEIGHTS": str(weights),
        "VOXELMILL_SEGMENT_DEVICE": "cpu",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(HERE.parent),
    }
    with cases.with_name(f"{script}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / f"totalsegmentator_{script}.py"), str(cases)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the processes that nnU-Net starts can be ended with it
        )
