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
    weights: Path, network: library.Network, names: dict[int, str], *, folds: int = 1, spacing: tuple[float, ...] = ()
) -> None:
    """Write a network of random weights as nnU-Net keeps it.

    Parameters
    ----------
    weights
        The weights folder.
    network
        Which.
    names
        Its own labels by number.
    folds
        How many folds.
    spacing
        Millimetres along z, y, x that it is said to be trained at; by default those of its task.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    spacing = spacing or (network.spacing or (7.0, 7.0, 8.0))[::-1]
    channel = {"mean": -60.0, "std": 400.0, "percentile_00_5": -1000.0, "percentile_99_5": 800.0}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [3, 6],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"nnUNetPlans_{network.configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 40, 32],
        "median_image_size_in_voxels": [60, 60, 60],
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization" if "MR" in network.folder else "CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resample, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resample, "order": 1},
        "batch_dice": True,
        "architecture": architecture,
    }
    plans = {
        "dataset_name": network.folder,
        "plans_name": network.plans,
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": [60, 60, 60],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": channel},
        "configurations": {network.configuration: configuration},
    }
    labels = {"background": 0, **{name: label for label, name in names.items()}}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    folder = weights / network.path
    for fold in range(folds):
        torch.manual_seed(network.dataset * 10 + fold)
        net = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            len(labels),
            deep_supervision=False,
        )
        checkpoint = {
            "network_weights": net.state_dict(),
            "init_args": {"configuration": network.configuration},
            "trainer_name": network.trainer,
            "inference_allowed_mirroring_axes": None,
            # What a training leaves there besides.
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "logging": {"ema_fg_dice": [np.float64(0.5)], "lrs": [0.01], "train_losses": [np.float32(-0.5)]},
        }
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "plans.json").write_text(json.dumps(plans))


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
