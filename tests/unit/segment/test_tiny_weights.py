"""The tests' own weights: small, honest about what they are, and good enough to tell organs apart on a new phantom."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if importlib.util.find_spec("totalsegmentator") is None:
    from conftest import IN_CI

    if IN_CI:
        pytest.fail("TotalSegmentator is not installed (tools/setup totalsegmentator); CI must have it", pytrace=False)
    pytest.skip("TotalSegmentator is not installed: tools/setup totalsegmentator", allow_module_level=True)

from tiny_weights.anatomy import BONES, NUMBER, STRUCTURES, TAUGHT
from tiny_weights.judge import LUNGS, dice, labelled
from tiny_weights.phantom import make_torso
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.home import prepare_home
from voxelmill_shared.plan import Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

WEIGHTS = Path(__file__).parents[2] / "weights"
CHECKPOINT = "fold_0/checkpoint_final.pth"
BOTH = pytest.mark.parametrize("resolution", [Resolution.FASTEST, Resolution.FAST])


# Every worker of pytest imports this file and one runs it: whatever imports torch, for seconds, waits until then.
@pytest.fixture(scope="module")
def torch() -> ModuleType:
    import torch

    return torch


@pytest.fixture(scope="module")
def layout() -> ModuleType:
    from tiny_weights import layout

    return layout


@pytest.fixture(scope="module")
def train() -> ModuleType:
    from tiny_weights import train

    return train


@pytest.fixture
def one_thread(torch: ModuleType) -> Iterator[None]:
    """One thread of torch: the patches here are so small that two would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loaded_by_nnunet(weights: Path, model: library.Network) -> Any:
    """nnU-Net's own predictor with a network loaded."""
    import torch

    prepare_home(weights)
    from voxelmill_segment.totalsegmentator.predictor import Predictor

    return Predictor(torch.device("cpu"), weights).model(model).nnunet


def labels_of(weights: Path, model: library.Network, size: int) -> set[int]:
    """What a network finds in noise."""
    import torch

    image = np.random.default_rng(0).normal(0, 1, (1, 1, size, size, size)).astype(np.float32)
    with torch.inference_mode():
        return set(loaded_by_nnunet(weights, model).network(torch.from_numpy(image)).argmax(1).unique().tolist())


@BOTH
def test_nnunet_loads_them(resolution):
    """The layout is the one that the library names, for all classes of `total`, and on the library's own grid."""
    (model,) = library.networks("total", resolution)
    loaded = loaded_by_nnunet(WEIGHTS, model)
    assert loaded.label_manager.num_segmentation_heads == len(library.classes("total")) + 1
    assert tuple(loaded.configuration_manager.spacing) == model.spacing  # nnU-Net then resamples nothing
    assert loaded.trainer_name == model.trainer
    assert loaded.dataset_json["labels"] == {"background": 0} | {n: i for i, n in library.classes("total").items()}


@BOTH
def test_half_precision_loses_nothing(torch, resolution):
    """The stored numbers are halves; the network computes with exactly those, in single precision."""
    (model,) = library.networks("total", resolution)
    loaded = loaded_by_nnunet(WEIGHTS, model).network.state_dict()
    stored = torch.load(WEIGHTS / model.path / CHECKPOINT, weights_only=True)["network_weights"]
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], value.float()) for name, value in stored.items())


def test_they_are_small():
    """A repository can carry them: 0.9 MB each, 2 MB in all."""
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    checkpoints = [path.stat().st_size for path in files if path.name == "checkpoint_final.pth"]
    assert len(checkpoints) == 2
    assert max(checkpoints) <= 900_000
    assert sum(path.stat().st_size for path in files) <= 2_000_000


def test_they_say_what_they_are():
    """Whoever opens the folder reads that it is not for patients."""
    described = [json.loads(path.read_text())["description"] for path in WEIGHTS.rglob("dataset.json")]
    assert len(described) == 2
    assert all("never for clinical or research use" in line for line in described)


# Seconds on two cores each: the real path through a whole volume is what these weights are for.
@pytest.mark.parametrize(
    ("resolution", "heights_mm"), [(Resolution.FASTEST, (-430.0, 240.0)), (Resolution.FAST, (-200.0, 88.0))]
)
def test_they_know_a_new_phantom(resolution, heights_mm):
    """Bones, lungs and liver of a body that was not trained on are found, each on its own side of the bar."""
    (model,) = library.networks("total", resolution)
    torso = make_torso(7, model.spacing, heights_mm)
    found = labelled(WEIGHTS, resolution, torso)
    assert dice(found, torso, BONES) >= 0.85
    assert dice(found, torso, LUNGS) >= 0.95
    assert dice(found, torso, ("liver",)) >= 0.9


@pytest.mark.parametrize(
    ("task", "resolution"), [("body", Resolution.NORMAL), ("total", Resolution.NORMAL), ("total_mr", Resolution.FAST)]
)
def test_random_weights_for_any_network(layout, tmp_path, task, resolution):
    """A network of any task can be made up; it loads, and its labels are of the task's and many."""
    model = library.networks(task, resolution)[-1]
    layout.write_random_weights(tmp_path, model, channel=library.modality(task), seed=3)
    found = labels_of(tmp_path, model, 32)
    assert found <= {0, *(own for own, _ in model.labels)}
    assert len(found) > min(2, len(model.labels))


def test_random_weights_follow_from_their_seed(torch, layout, tmp_path):
    """The same seed gives the same network, another one another; the program's own random numbers are left alone."""
    (model,) = library.networks("body", Resolution.FAST)
    before = torch.random.get_rng_state()
    stored = [
        torch.load(layout.write_random_weights(tmp_path / str(n), model, seed=seed) / CHECKPOINT, weights_only=True)
        for n, seed in enumerate((1, 1, 2))
    ]
    first, same, other = (list(one["network_weights"].values()) for one in stored)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_folds_lie_side_by_side(torch, layout, tmp_path):
    """A task that averages several folds finds each of them, with numbers of its own."""
    (model,) = library.networks("pleural_pericard_effusion", Resolution.NORMAL)
    for fold in (0, 3):
        folder = layout.write_random_weights(tmp_path, model, seed=fold, fold=fold)
    heads = [
        torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=True)["network_weights"]
        for fold in (0, 3)
    ]
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_a_class_that_was_not_trained_is_never_found(torch, layout, tmp_path):
    """A head of few classes is widened to all: the others stay below, whatever the image."""
    (model,) = library.networks("total", Resolution.FASTEST)
    shape = layout.Shape((6.0, 6.0, 6.0), (16, 16, 16), (4, 8))
    torch.manual_seed(0)
    state = layout.with_all_classes(layout.network(shape, 3).state_dict(), [0, 5, 116], 118)
    layout.write_weights(tmp_path, model, shape, state, names=library.classes("total"))
    assert labels_of(tmp_path, model, 16) == {0, 5, 116}


@pytest.mark.usefixtures("one_thread")
def test_training_learns(train, layout, monkeypatch):
    """A few steps of the course bring the error down, and give one output for each structure and the background."""
    said = []
    monkeypatch.setattr(train, "said", said.append)
    course = train.Course(layout.Shape((12.0, 12.0, 12.0), (16, 16, 16), (8, 8)), steps=60, phantoms=1, rate=2e-2)
    net = train.train(course)
    assert len(net.decoder.seg_layers[-1].bias) == len(TAUGHT) + 1
    losses = [float(line.rpartition(" ")[2]) for line in said if "loss" in line]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.usefixtures("one_thread")
def test_the_command_writes_random_weights(train, tmp_path, monkeypatch):
    """The script makes up every network of a task in one go."""
    monkeypatch.setattr(train, "said", lambda _: None)
    assert train.main(["--random", "total", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {model.folder for model in library.networks("total")}


def test_a_phantom_follows_from_its_seed():
    """The same arguments give the same phantom, another seed another body."""
    one, same, other = (make_torso(seed, (6.0, 6.0, 12.0), (-60.0, 60.0)) for seed in (1, 1, 2))
    assert np.array_equal(one.voxels, same.voxels)
    assert np.array_equal(one.labels, same.labels)
    assert one.voxels.shape != other.voxels.shape or not np.array_equal(one.voxels, other.voxels)


def test_a_phantom_has_every_structure():
    """All structures are classes of `total`, and each is somewhere in a body from the thighs to the neck."""
    numbers = {name: number for number, name in library.classes("total").items()}
    assert set(STRUCTURES) <= set(numbers)
    torso = make_torso(2, heights_mm=(-440.0, 330.0))
    there = set(np.unique(torso.classes(numbers)))
    assert there == {0, *(numbers[name] for name in STRUCTURES)}


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("liver", 0, -1), ("spleen", 0, 1), ("hip_left", 0, 1), ("rib_right_5", 0, -1), ("vertebrae_T6", 1, 1), ("sternum", 1, -1)],
)  # fmt: skip
def test_a_phantom_lies_as_its_affine_says(name, axis, sign):
    """In LPS millimetres the liver is on the right, the spine at the back."""
    torso = make_torso(4, (6.0, 6.0, 6.0))
    index = np.argwhere(torso.labels == NUMBER[name]).mean(0)[::-1]
    assert (torso.affine @ [*index, 1.0])[axis] * sign > 15.0
