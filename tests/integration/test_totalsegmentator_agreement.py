"""Our label maps are those of the TotalSegmentator package, voxel for voxel."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from conftest import missing
from integration.totalsegmentator_kit import (
    LOBES,
    WEIGHTS,
    Case,
    oblique,
    part_of,
    small_torso,
    start,
    write_cases,
    write_random_network,
)
from unit.segment.torso import turned
from voxelmill_segment.totalsegmentator import library
from voxelmill_shared.plan import Resolution

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging.volume import Volume

FAST, FASTEST = {"fast": True}, {"fastest": True}


def _float(volume: Volume) -> Volume:
    """The same with parts of a HU."""
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, volume.voxels.shape)
    return type(volume)((volume.voxels + noise).astype(np.float32), volume.affine, volume.modality)


def _cases() -> list[Case]:
    chest = small_torso()
    tilted = oblique(turned(chest, (1, 2, 0), (True, False, True)), 11.0)
    half = part_of(tilted, (0, 42), (14, 44), (0, 32))
    thick = part_of(chest, (0, 32), (0, 42), (0, 54))
    thick = type(chest)(thick.voxels[::2], thick.affine @ np.diag([1.0, 1.0, 2.0, 1.0]), "CT")
    corner = part_of(chest, (12, 24), (14, 26), (11, 23))
    # The package's thirds overlap by 20 slices on either side: what is cropped to must have more than 60 of 1.5 mm.
    tall = part_of(chest, (8, 24), (14, 26), (11, 23))
    mr = type(chest)(np.clip(corner.voxels + 1100, 0, None), corner.affine, "MR")
    lungs = {"roi_subset": list(LOBES)}
    return [
        Case("fastest", chest, {"resolution": "fastest"}, FASTEST),
        Case("fastest_lungs", chest, {"resolution": "fastest", "organ": "lungs"}, {**FASTEST, **lungs}),
        Case("fast_turned", half, {"resolution": "fast"}, FAST),
        Case("fast_lungs_turned", tilted, {"resolution": "fast", "organ": "lungs"}, {**FAST, **lungs}),
        Case("fastest_thick_float", _float(thick), {"resolution": "fastest"}, FASTEST),
        Case("fastest_lungs_float", _float(tilted), {"resolution": "fastest", "organ": "lungs"}, {**FASTEST, **lungs}),
        Case("normal", corner, {"resolution": "normal"}, {}),
        Case("normal_lungs_split", tall, {"resolution": "normal", "organ": "lungs"}, lungs, split=True),
        Case("mr", mr, {"resolution": "normal"}, {"task": "total_mr"}),
        Case("body", tilted, {"task": "body", "resolution": "fast"}, {"task": "body", "fast": True}),
        Case("trunk_cavities", corner, {"task": "trunk_cavities"}, {"task": "trunk_cavities"}),
        Case("pleural", tilted, {"task": "pleural_pericard_effusion"}, {"task": "pleural_pericard_effusion"}),
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both label maps of each case, made once for all workers of the suite."""
    if library.installed_version() is None:
        missing("TotalSegmentator is not installed (tools/setup totalsegmentator)")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "totalsegmentator"
    folder.mkdir(exist_ok=True)
    done = folder / "done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _ask_both(folder, tmp_path_factory)
            done.touch()
    return folder


def _ask_both(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ask the package and ourselves, in processes that run beside each other."""
    weights = tmp_path_factory.mktemp("weights")
    shutil.copytree(WEIGHTS, weights, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    for task, resolution in (("total", Resolution.NORMAL), ("total_mr", Resolution.NORMAL)):
        for network in library.networks(task, resolution):
            write_random_network(weights, network)
    for task, resolution, folds in (
        ("body", Resolution.FAST, 1),
        ("trunk_cavities", Resolution.NORMAL, 1),
        ("pleural_pericard_effusion", Resolution.NORMAL, 2),
    ):
        network = library.networks(task, resolution)[0]
        # One that was trained at another spacing than its task resamples to.
        spacing = (2.0, 2.0, 2.0) if task == "trunk_cavities" else None
        write_random_network(weights, network, folds=folds, spacing=spacing)
    cases = write_cases(folder, _cases())
    processes = {name: start(name, cases, weights, tmp_path_factory.mktemp("home")) for name in ("ours", "theirs")}
    try:
        for name, process in processes.items():
            code = process.wait(timeout=240)
            assert code == 0, f"{name}:\n{(folder / f'{name}.log').read_text()[-4000:]}"
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_labels_are_the_packages_own(answers: Path, case: Case) -> None:
    """Every voxel has the label that the package gives it, and some voxels have one."""
    ours, theirs = (np.load(answers / f"{case.name}.{which}.npy") for which in ("ours", "theirs"))
    assert ours.shape == case.volume.voxels.shape
    assert np.count_nonzero(ours != theirs) == 0
    assert theirs.any()


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case.name)
def test_says_what_it_was_made_with(answers: Path, case: Case) -> None:
    """Each label map names its task and weights, nothing was given up, and tiles were told of."""
    document: dict[str, Any] = json.loads((answers / f"{case.name}.ours.json").read_text())
    assert document["warnings"] == []
    assert document["facts"]["device"] == "cpu"
    assert len(document["facts"]["weights_digest"]) == 64
    assert any("predict" in line and "total=" in line for line in document["told"]) or "lungs" in case.name
