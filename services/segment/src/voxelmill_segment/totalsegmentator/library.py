"""What is read from the TotalSegmentator package: tasks, classes, licences, networks. The only place that reads it.

Everything here comes from the package's tables, which need neither torch nor weights, so asking is cheap. An upgrade
that moves them fails here, and in `tests/unit/segment/test_totalsegmentator_library.py`, and nowhere else.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.resources
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import NotEquippedError
from voxelmill_shared.plan import MODEL_REVISIONS, ModelName, Resolution

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = MODEL_REVISIONS[ModelName.TOTALSEGMENTATOR]
"""The version that the same labels are promised for (the extra in `pyproject.toml` pins it)."""
INSTALL = "make setup-totalsegmentator (in a clone), or pip install 'voxelmill-segment[totalsegmentator]'"
_NEEDED = ("totalsegmentator", "nnunetv2", "torch")
_MODES = {Resolution.NORMAL: "default", Resolution.FAST: "fast", Resolution.FASTEST: "fastest"}
RELEASES = "https://github.com/wasserth/TotalSegmentator/releases/download"
"""`libs.download_pretrained_weights`: where the open weights lie, `{RELEASES}/{version}/{folder}.zip`."""


class NotInstalledError(NotEquippedError):
    """TotalSegmentator is not installed, or not in the version that Voxelmill works with."""


@dataclass(frozen=True, slots=True)
class Network:
    """One trained network, as nnU-Net keeps it: `{folder}/{trainer}__{plans}__{configuration}/fold_{n}`.

    Parameters
    ----------
    dataset
        nnU-Net's number of the data set, 297.
    folder
        The data set's folder, `Dataset297_TotalSegmentator_total_3mm_1559subj`.
    trainer, plans, configuration
        What the folder within it is named after.
    folds
        The folds that are averaged; None: those that are there.
    spacing
        Millimetres of the grid that TotalSegmentator resamples to, (x, y, z) of the canonical RAS volume. None: the
        volume's own.
    labels
        The task's label of each of the network's labels.
    """

    dataset: int
    folder: str
    trainer: str
    plans: str
    configuration: str
    folds: tuple[int, ...] | None
    spacing: tuple[float, float, float] | None
    labels: tuple[tuple[int, int], ...]

    @property
    def path(self) -> str:
        """The folder of the trained model, below the weights folder."""
        return f"{self.folder}/{self.trainer}__{self.plans}__{self.configuration}"


@dataclass(frozen=True, slots=True)
class SnomedRow:
    """The library's SNOMED CT codes of one class, (value, meaning) each: empty where it has none."""

    category: tuple[str, str]
    type: tuple[str, str]
    modifier: tuple[str, str]


def installed_version() -> str | None:
    """The version of TotalSegmentator that is installed, None if it or what it cannot do without is not there."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        return None
    return importlib.metadata.version("TotalSegmentator")


def require() -> None:
    """Make sure that the library is there, in the version that Voxelmill works with.

    Raises
    ------
    NotInstalledError
        If it is not.
    """
    found = installed_version()
    if found is None:
        raise NotInstalledError(f"the model totalsegmentator is not installed: {INSTALL}")
    if found != VERSION:
        raise NotInstalledError(
            f"the model totalsegmentator needs TotalSegmentator {VERSION}, installed is {found}: {INSTALL}"
        )


def tasks() -> tuple[str, ...]:
    """Every task that the library offers, also those that are refused (`voxelmill_segment.totalsegmentator.tasks`)."""
    return tuple(_registry().TASKS)


def classes(task: str) -> dict[int, str]:
    """The task's labels and their names."""
    return dict(_classes().class_map[task])


def modality(task: str) -> str:
    """`CT` or `MR`."""
    return str(_registry().task_modality(task))


def licensed(task: str) -> bool:
    """Whether the library asks for a licence number."""
    return bool(_registry().requires_license(task)) or bool(_config(task).get("commercial"))


def resolutions(task: str) -> tuple[Resolution, ...]:
    """The working grids that a task has, the usual one first."""
    modes = _config(task).get("sub_modes")
    return tuple(r for r, mode in _MODES.items() if mode in modes) if modes else (Resolution.NORMAL,)


def networks(task: str, resolution: Resolution = Resolution.NORMAL) -> tuple[Network, ...]:
    """The networks of a task, in the order in which they run.

    Raises
    ------
    KeyError
        If the task has no such resolution.
    """
    config = _settings(task, resolution)
    datasets = config["task_id"]
    if not isinstance(datasets, list):
        labels = tuple((label, label) for label in classes(task))
        return (_network(datasets, config, labels),)
    numbers = {name: label for label, name in classes(task).items()}
    parts = _parts(task)
    return tuple(
        _network(one, config, tuple((label, numbers[name]) for label, name in parts[one].items())) for one in datasets
    )


def crop_classes(task: str) -> tuple[str, ...]:
    """What the volume is cropped to before the task's own networks see it; empty: it is not cropped."""
    return tuple(_config(task).get("crop") or ())


def crop_task(task: str) -> str | None:
    """The task whose whole answer says where to crop to, where that is not the rough `total`."""
    found = _config(task).get("crop_model")
    return None if found is None else str(found)


def rough_network(task: str, crop: Iterable[str]) -> tuple[str, Network]:
    """The network that roughly finds what a volume is cropped to, and the task whose labels it gives.

    As `python_api.totalsegmentator` chooses it, which has no table of it: the test of this module holds its source.

    Parameters
    ----------
    task
        What is computed in the end.
    crop
        The classes that are looked for: `crop_classes`, or a subset of `total` that was asked for (`roi_subset`).
    """
    if {"body_trunc", "body_extremities"} & set(crop):
        return "body", networks("body", Resolution.FAST)[0]
    if task.endswith("_mr"):
        return "total_mr", networks("total_mr", Resolution.FAST)[0]
    robust = bool(_config(task).get("robust_crop"))
    return "total", networks("total", Resolution.FAST if robust else Resolution.FASTEST)[0]


def refining_networks(task: str) -> tuple[Network, ...]:
    """Networks that the library runs besides, to mend the answer: `vertebrae_pp_refined` asks for the bodies."""
    return networks("vertebrae_body") if task == "vertebrae_pp_refined" else ()


def tile_step(task: str) -> float:
    """How far the tiles of the sliding window are apart, in tiles (`nnunet.nnUNet_predict_image`)."""
    return 0.8 if task in {"total", "total_v3", "total_mr"} else 0.5


@cache
def snomed_table() -> dict[str, SnomedRow]:
    """The library's SNOMED CT codes by class (what `dicom_utils.load_snomed_mapping` reads)."""
    require()
    path = importlib.resources.files("totalsegmentator") / "resources" / "totalsegmentator_snomed_mapping.csv"

    def code(row: Mapping[str, str], part: str) -> tuple[str, str]:
        column = f"SegmentedProperty{part}CodeSequence"
        return row[f"{column}.CodeValue"], row[f"{column}.CodeMeaning"]

    return {
        row["Structure"]: SnomedRow(code(row, "Category"), code(row, "Type"), code(row, "TypeModifier"))
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    }


def download_address(network: Network) -> str | None:
    """Where the library fetches a data set's weights; None where it has no open address."""
    release = _configs().TASK_ID_WEIGHTS_CONFIGS[network.dataset].get("version")
    return None if release in {None, "TODO"} else f"{RELEASES}/{release}/{network.folder}.zip"


def _network(dataset: int, config: Mapping[str, Any], labels: tuple[tuple[int, int], ...]) -> Network:
    spacing = config["resample"]
    if spacing is not None:
        x, y, z = spacing if isinstance(spacing, list) else (spacing, spacing, spacing)
        spacing = (float(x), float(y), float(z))
    folds = config["folds"]
    return Network(
        dataset=dataset,
        folder=str(_configs().TASK_ID_WEIGHTS_CONFIGS[dataset]["foldername"]),
        trainer=str(config["trainer"]),
        plans=str(config["plans"] or "nnUNetPlans"),
        configuration=str(config["model"]),
        folds=None if folds is None else tuple(folds),
        spacing=spacing,
        labels=labels,
    )


def _settings(task: str, resolution: Resolution) -> dict[str, Any]:
    """The library's settings of a task, as `python_api.get_task_config` puts them together."""
    config = _config(task)
    modes = config.get("sub_modes")
    if modes is None and resolution is not Resolution.NORMAL:
        raise KeyError(resolution)
    return {**_configs().DEFAULT_CONFIG, **(modes[_MODES[resolution]] if modes else config)}


def _config(task: str) -> Mapping[str, Any]:
    config: Mapping[str, Any] = _configs().TASK_CONFIGS[task]
    return config


def _parts(task: str) -> dict[int, dict[int, str]]:
    """The classes of each network of a task of several, by data set (the beginning of `nnUNet_predict_image`)."""
    tables = _classes()
    named, parts = {
        "total": (tables.map_taskid_to_partname_ct, tables.class_map_5_parts),
        "total_mr": (tables.map_taskid_to_partname_mr, tables.class_map_parts_mr),
        "headneck_muscles": (tables.map_taskid_to_partname_headneck_muscles, tables.class_map_parts_headneck_muscles),
    }[task]
    return {dataset: parts[name] for dataset, name in named.items()}


@cache
def _registry() -> Any:
    require()
    from totalsegmentator import registry  # noqa: PLC0415 - an extra that may be absent

    return registry


@cache
def _classes() -> Any:
    require()
    from totalsegmentator import map_to_binary  # noqa: PLC0415 - as above

    return map_to_binary


@cache
def _configs() -> Any:
    require()
    from totalsegmentator import map_tasks_config  # noqa: PLC0415 - as above

    return map_tasks_config
