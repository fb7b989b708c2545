"""What the model gives up when memory ends, in which order, and never unasked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from voxelmill_segment.totalsegmentator.segmenter import ladder
from voxelmill_segment.totalsegmentator.tasks import resolve
from voxelmill_segment.totalsegmentator.weights import WeightsFolder
from voxelmill_shared.plan import ModelName, Plan, Resolution

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("totalsegmentator")


def weights_of(folder: Path, *resolutions: Resolution) -> WeightsFolder:
    """A folder in which the networks of `total` seem to be there."""
    for resolution in resolutions:
        for network in resolve(Plan(resolution=resolution), "CT").all_networks:
            fold = folder / network.path / "fold_0"
            fold.mkdir(parents=True)
            (fold / "checkpoint_final.pth").touch()
            for name in ("plans.json", "dataset.json"):
                (folder / network.path / name).write_text(json.dumps({}))
    return WeightsFolder(folder)


def rungs(plan: Plan, folder: WeightsFolder) -> list[tuple[Resolution, bool, bool]]:
    """Resolution, whether the results are on the host, and whether it is warned of, of each rung."""
    steps = ladder(resolve(plan, "CT"), plan, folder, gpu=True)
    return [(rung.request.resolution, rung.results_on_host, bool(rung.warning)) for rung in steps]


def test_resolution_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    """Whoever names a resolution gets that or nothing."""
    folder = weights_of(tmp_path, Resolution.FAST, Resolution.FASTEST)
    plan = Plan(model=ModelName.TOTALSEGMENTATOR, resolution=Resolution.FAST)
    assert rungs(plan, folder) == [(Resolution.FAST, False, False), (Resolution.FAST, True, True)]


def test_lower_resolutions_come_last_and_only_with_their_weights(tmp_path: Path) -> None:
    """Without a named resolution the next lower ones are tried, each with a warning, if the worker has them."""
    plan = Plan(model=ModelName.TOTALSEGMENTATOR)
    same = [(Resolution.NORMAL, False, False), (Resolution.NORMAL, True, True)]
    assert rungs(plan, WeightsFolder(tmp_path)) == same
    assert rungs(plan, weights_of(tmp_path, Resolution.FASTEST)) == [*same, (Resolution.FASTEST, True, True)]


def test_organ_group_stays_the_same_on_every_rung(tmp_path: Path) -> None:
    """A lower rung finds the classes that were asked for, and no others."""
    folder = weights_of(tmp_path, Resolution.FAST, Resolution.FASTEST)
    plan = Plan(model=ModelName.TOTALSEGMENTATOR, organ="lungs")
    steps = list(ladder(resolve(plan, "CT"), plan, folder, gpu=False))
    assert [rung.request.resolution for rung in steps[2:]] == [Resolution.FAST, Resolution.FASTEST]
    assert len({tuple(rung.request.classes.items()) for rung in steps}) == 1
