"""Tiny networks written as TotalSegmentator lays out its weights: plans, data set and checkpoint of nnU-Net 2.

`network` builds what `plans` describes and `write_weights` writes it down. `write_random_weights` writes one of random
numbers in a moment: for tests of tasks that need several networks, where what they find does not matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet  # type: ignore[import-untyped]  # ships none
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.library import Network

NOTICE: Final = (
    "For tests only, never for clinical or research use: a tiny network trained on computed phantoms, of no patient"
)
_MEAN_HU, _DEVIATION_HU, _LOWEST_HU, _HIGHEST_HU = -100.0, 400.0, -1000.0, 900.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a tiny U-Net.

    Parameters
    ----------
    spacing_mm
        The spacing of its voxels along x, y and z (columns, rows, slices).
    patch
        Slices, rows and columns that it sees at once: multiples of two to the power of (stages - 1).
    features
        Its channels, from the finest stage to the coarsest.
    convolutions
        How many there are in each stage, down and up.
    """

    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    features: tuple[int, ...]
    convolutions: int = 1


def _arguments(shape: Shape) -> dict[str, Any]:
    """Return what nnU-Net's plans hold of the network; the names of classes are its way to say types in JSON."""
    stages = len(shape.features)
    return {
        "n_stages": stages,
        "features_per_stage": list(shape.features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [shape.convolutions] * stages,
        "n_conv_per_stage_decoder": [shape.convolutions] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def network(shape: Shape, classes: int) -> PlainConvUNet:
    """Return the network of a shape with so many classes (the background is one of them), one channel in."""
    types = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    return PlainConvUNet(input_channels=1, num_classes=classes, **(_arguments(shape) | types))


def normalised(voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return HU as the networks want them: nnU-Net's `CTNormalization` with the figures of our plans."""
    clipped = np.clip(voxels.astype(np.float32), _LOWEST_HU, _HIGHEST_HU)
    scaled: npt.NDArray[np.float32] = (clipped - np.float32(_MEAN_HU)) / np.float32(_DEVIATION_HU)
    return scaled


def plans(model: Network, shape: Shape, channel: str = "CT") -> dict[str, Any]:
    """Return nnU-Net's `plans.json`.

    Parameters
    ----------
    model
        Which of TotalSegmentator's networks it stands for.
    shape
        The network.
    channel
        `CT` for Hounsfield units, else the intensities are normalised by their own mean and deviation.
    """
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    spacing = list(shape.spacing_mm[::-1])
    return {
        "dataset_name": model.folder,
        "plans_name": model.plans,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(shape.patch),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": _MEAN_HU,
                "std": _DEVIATION_HU,
                "percentile_00_5": _LOWEST_HU,
                "percentile_99_5": _HIGHEST_HU,
                "min": -1024.0,
                "max": 3071.0,
                "median": 20.0,
            }
        },
        "configurations": {
            model.configuration: {
                "data_identifier": f"{model.plans}_{model.configuration}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": list(shape.patch),
                "median_image_size_in_voxels": list(shape.patch),
                "spacing": spacing,
                "normalization_schemes": ["CTNormalization" if channel == "CT" else "ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
                "batch_dice": True,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": _arguments(shape),
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def with_all_classes(state: Mapping[str, torch.Tensor], numbers: list[int], classes: int) -> dict[str, torch.Tensor]:
    """Return a network's parameters with a head of all classes: those that it was not trained on are never chosen.

    Parameters
    ----------
    state
        The parameters of a network with `len(numbers)` classes.
    numbers
        The number that each of its classes has in the wide head.
    classes
        How many classes the wide head has, the background among them.
    """
    wide: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if "seg_layers" not in name:
            wide[name] = value
            continue
        # -30 lies far below every trained class's output, and is a number that half precision holds.
        head = torch.zeros((classes, *value.shape[1:])) if value.ndim > 1 else torch.full((classes,), -30.0)
        head[torch.tensor(numbers)] = value
        wide[name] = head
    return wide


def _halved(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the parameters in half precision; names that share a tensor still do, or the file would hold it twice."""
    halves: dict[int, torch.Tensor] = {}
    return {name: halves.setdefault(value.data_ptr(), value.detach().half()) for name, value in state.items()}


def write_weights(
    root: Path,
    model: Network,
    shape: Shape,
    state: Mapping[str, torch.Tensor],
    *,
    names: Mapping[int, str] | None = None,
    channel: str = "CT",
    fold: int = 0,
) -> Path:
    """Write one network where TotalSegmentator looks for it.

    The parameters are stored in half precision. nnU-Net copies them into a network of single precision, exactly: the
    labels are those of the rounded numbers, whoever loads them.

    Parameters
    ----------
    root
        The folder of the weights.
    model
        Which of TotalSegmentator's networks it stands for: its folder, trainer, plans and number of labels.
    shape
        The network.
    state
        The network's parameters; its head has one channel more than the model has labels.
    names
        Names of the labels for `dataset.json`; without them they are numbered.
    channel
        As in `plans`.
    fold
        Which of the folds it is, where a model has several.

    Returns
    -------
    pathlib.Path
        The folder with `plans.json`, `dataset.json` and `fold_{n}/checkpoint_final.pth`.
    """
    folder = root / model.path
    folder.mkdir(parents=True, exist_ok=True)
    labels = {(names or {}).get(label, f"label_{label}"): label for label, _ in model.labels}
    described = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **labels},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "name": model.folder,
        "description": NOTICE,
    }
    (folder / "dataset.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "plans.json").write_text(json.dumps(plans(model, shape, channel), indent=1) + "\n")
    checkpoint = {
        "network_weights": _halved(state),
        "init_args": {"configuration": model.configuration},
        "trainer_name": model.trainer,
        "inference_allowed_mirroring_axes": None,
    }
    (folder / f"fold_{fold}").mkdir(exist_ok=True)
    torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def write_random_weights(
    root: Path, model: Network, *, shape: Shape | None = None, channel: str = "CT", seed: int = 0, fold: int = 0
) -> Path:
    """Write a network of random numbers, in well under a second; the same seed gives the same network.

    Its label maps hold many classes, scattered by the image's intensities: something that two ways of running it can be
    compared by. Parameters and result are those of `write_weights`; the shape is a small one of the model's spacing.
    """
    chosen = shape or Shape(model.spacing or (1.5, 1.5, 1.5), patch=(32, 32, 32), features=(4, 8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network(chosen, len(model.labels) + 1)
    return write_weights(root, model, chosen, made.state_dict(), channel=channel, fold=fold)
