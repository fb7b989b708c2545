"""The model totalsegmentator in a child of its own: stopped between tiles, short of memory, with weights that are none.

All in one child, for it takes seconds to load torch. Its networks are of random weights, the code that runs them real.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_asyncio

from conftest import missing
from e2e.sharing import once
from integration.totalsegmentator_child import NO_MEMORY
from integration.totalsegmentator_kit import HERE, part_of, small_torso
from voxelmill_segment.passing import map_array, store_volume
from voxelmill_segment.task import Computation, Computed
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.errors import DamagedWeightsError, LibraryRefusedError
from voxelmill_shared.child import Child, Limits
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import ModelName, Plan, Resolution
from voxelmill_shared.work import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITER = """
import sys
from pathlib import Path
from integration.totalsegmentator_kit import write_random_network
from voxelmill_segment.totalsegmentator import library
from voxelmill_shared.plan import Resolution

for task, resolution, folds in (
    ("total", Resolution.FAST, 1), ("total", Resolution.FASTEST, 1), ("body", Resolution.FAST, 1),
    ("vertebrae_pp", Resolution.NORMAL, 1), ("pleural_pericard_effusion", Resolution.NORMAL, 2),
):
    write_random_network(Path(sys.argv[1]), library.networks(task, resolution)[0], folds=folds)
"""


class Site:
    """The child, its weights, and a folder for what is handed to it."""

    def __init__(self, child: Child, weights: Path, folder: Path) -> None:
        self.child = child
        self.weights = weights
        self.folder = folder

    def request(self, name: str, volume: Volume, **plan: Any) -> Computation:
        stored = store_volume(volume, self.folder / name / "volume.npy")
        return Computation(stored, Plan(model=ModelName.TOTALSEGMENTATOR, **plan), self.folder / name / "labels.npy")

    async def call(self, what: str, argument: Any, on_progress: Any = None) -> Any:
        return await self.child.call((what, argument), on_progress)

    async def pid(self) -> int:
        """The running child's, started if none is."""
        await self.child.start()
        assert self.child._process is not None
        return self.child._process.pid


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    if library.installed_version() is None:
        missing("TotalSegmentator is not installed (tools/setup totalsegmentator)")
    weights = tmp_path_factory.mktemp("weights")
    environment = {
        "VOXELMILL_WEIGHTS": str(weights),
        "VOXELMILL_SEGMENT_DEVICE": "cpu",
        "PYTHONPATH": os.pathsep.join((str(HERE.parent), str(HERE.parents[1] / "tools"))),
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
    }

    def write(made: Path) -> None:
        writer = [sys.executable, "-c", WRITER, str(made)]
        subprocess.run(writer, env={**os.environ, **environment, "PYTHONWARNINGS": "ignore"}, check=True)

    # Copied, for the tests damage them.
    shutil.copytree(once(tmp_path_factory, "random-networks", write)[0], weights, dirs_exist_ok=True)
    limits = Limits(1 << 40, 120.0, stop_seconds=60.0)
    child = Child("integration.totalsegmentator_child:act", limits, environment)
    yield Site(child, weights, tmp_path_factory.mktemp("work"))
    await child.close()


def labels_of(computed: Computed) -> np.ndarray:
    return np.array(map_array(computed.labels))


async def test_cancelled_between_tiles_and_the_next_case_is_right(site: Site) -> None:
    """A job that nobody wants any more ends at its next tile; the child and its networks stay, and answer as before."""
    expected = labels_of(await site.call("plainly", site.request("before", small_torso(), resolution="fastest")))
    pid, tiles = await site.pid(), []

    def stop(progress: Progress | str) -> None:
        if isinstance(progress, Progress) and progress.step == "predict":
            tiles.append(progress)
            call.cancel()

    call = asyncio.ensure_future(
        site.call("plainly", site.request("cancelled", small_torso(), resolution="fastest"), stop)
    )
    with pytest.raises(asyncio.CancelledError):
        await call
    assert tiles
    assert len(tiles) < tiles[0].total  # it did not run to its end
    after = labels_of(await site.call("plainly", site.request("after", small_torso(), resolution="fastest")))
    assert await site.pid() == pid
    assert expected.any()
    assert np.array_equal(after, expected)


async def test_a_bound_on_memory_leads_down_the_ladder(site: Site) -> None:
    """Where the window at 3 mm exceeds what the child may map, 6 mm is taken and said, and the labels are those of 6 mm.

    The volume is 1 m wide and 60 mm high: its window takes 0.8 GB at 3 mm and 0.2 GB at 6 mm.
    """
    wide = Volume(
        np.random.default_rng(1).integers(-900, 900, (5, 66, 66)).astype(np.int16), np.diag([15.0, 15, 12, 1]), "CT"
    )
    there = await site.call("plainly", site.request("there", wide, resolution="fastest"))
    computed = await site.call("bounded", site.request("bounded", wide, quality="fast"))
    assert computed.facts["resolution"] == "fastest"
    assert "computed at the resolution fastest instead of fast" in "".join(computed.warnings)
    assert computed.facts["weights_digest"] == there.facts["weights_digest"]
    assert np.array_equal(labels_of(computed), labels_of(there))


async def test_a_device_without_memory_is_asked_once_more_with_nothing_else_in_it(site: Site) -> None:
    """The second time no other network is kept; the labels are the same, and a warning says what happened."""
    corner = part_of(small_torso(), (12, 24), (14, 26), (11, 23))
    request = site.request("first", corner, quality="fast")
    expected = labels_of(await site.call("plainly", request))
    await site.call("plainly", site.request("other", corner, resolution="fastest"))
    computed, kept = await site.call("short_of_memory", (request, 1))
    assert kept[0] > 1
    assert kept[1] == 1
    assert computed.facts["resolution"] == "fast"
    assert "the labels are the same" in "".join(computed.warnings)
    assert np.array_equal(labels_of(computed), expected)


async def test_a_resolution_that_was_asked_for_is_not_lowered(site: Site) -> None:
    """Whoever names one gets that, or is told that there is no memory for it."""
    corner = part_of(small_torso(), (12, 24), (14, 26), (11, 23))
    request = site.request("asked", corner, resolution="fast")
    assert await site.call("short_of_memory", (request, 99)) == NO_MEMORY


async def test_no_memory_to_load_a_network_is_no_damage(site: Site) -> None:
    """Else the job would wait for ever for weights that are there and sound."""
    request = site.request("loading", small_torso(), resolution="fastest")
    assert await site.call("loading_without_memory", request) == NO_MEMORY


async def test_the_network_that_was_not_used_for_longest_goes(site: Site) -> None:
    """With room for two the third takes the place of the one before the last; with room for less than one, one stays."""
    fast, fastest, body = 297, 298, library.networks("body", Resolution.FAST)[0].dataset
    assert await site.call("keep", 2.2) == [[fast], [fast, fastest], [fastest, fast], [fast, body]]
    assert await site.call("keep", 0.1) == [[fast], [fastest], [fast], [body]]


async def test_folds_are_those_of_the_first_call_at_every_call(site: Site) -> None:
    """A network that averages two folds gives the same labels when it is used again."""
    assert await site.call("folds", None)


async def test_where_the_package_breaks_the_child_lives_on_and_the_reason_says_where(site: Site) -> None:
    """The package's own mending of vertebrae breaks where none is found: no accident, and no attempt would do better."""
    pid = await site.pid()
    empty = Volume(np.full((8, 12, 12), -1000, np.int16), np.diag([8.0, 8, 8, 1]), "CT")
    with pytest.raises(LibraryRefusedError, match=r"broke in the task vertebrae_pp: IndexError.*postprocessing\.py"):
        await site.call("plainly", site.request("empty", empty, task="vertebrae_pp"))
    assert await site.pid() == pid


async def test_scores_of_the_training_are_numbers_too(site: Site) -> None:
    """Checkpoints hold scalars of numpy beside their tensors, under its old name or its new one: they load as well."""
    checkpoint = site.weights / library.networks("total", Resolution.FASTEST)[0].path / "fold_0/checkpoint_final.pth"
    sound = checkpoint.read_bytes()
    new = await site.call("plainly", site.request("new", small_torso(), resolution="fastest"))
    try:
        _rewrite(checkpoint, lambda data: data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        old = await site.call("plainly", site.request("old", small_torso(), resolution="fastest"))
    finally:
        checkpoint.write_bytes(sound)
    assert old.facts["weights_digest"] != new.facts["weights_digest"]  # or nothing was replaced
    assert np.array_equal(labels_of(old), labels_of(new))


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _rewrite(checkpoint: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what a checkpoint holds beside its tensors' numbers: a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(content, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith("data.pkl") else data)
    checkpoint.write_bytes(content.getvalue())


def _with_code(checkpoint: Path) -> None:
    """Put a pickle that runs a command into a checkpoint."""
    _rewrite(checkpoint, lambda _: pickle.dumps({"network_weights": _Bomb(checkpoint.with_name("ran"))}, protocol=2))


DAMAGES = {
    "cut": lambda model: os.truncate(model / "fold_0/checkpoint_final.pth", 5000),
    "code": lambda model: _with_code(model / "fold_0/checkpoint_final.pth"),
    "a list for plans": lambda model: (model / "plans.json").write_text("[1]"),
    "no JSON": lambda model: (model / "plans.json").write_text("{"),
    "no configuration": lambda model: (model / "plans.json").write_text('{"configurations": {}}'),
    "another architecture": lambda model: _edit(model / "plans.json", "PlainConvUNet", "NoSuchNet"),
    "other sizes": lambda model: _widen(model / "plans.json"),
    "no channels": lambda model: (model / "dataset.json").write_text("{}"),
}


def _widen(path: Path) -> None:
    """Say that the network has twice the features that its weights have."""
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [6, 12]
    path.write_text(json.dumps(plans))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_weights_are_one_clear_line(site: Site, damage: str) -> None:
    """Nothing in a checkpoint is run, the line says which data set it is and what to do, and the child lives on."""
    model = site.weights / library.networks("total", Resolution.FASTEST)[0].path
    sound = shutil.copytree(model, site.folder / f"sound-{damage}")
    pid = await site.pid()
    try:
        DAMAGES[damage](model)
        with pytest.raises(DamagedWeightsError) as caught:
            await site.call("plainly", site.request(damage, small_torso(), resolution="fastest"))
    finally:
        shutil.rmtree(model)
        shutil.copytree(sound, model)
    line = str(caught.value)
    assert "Dataset298" in line
    assert "voxelmill weights verify" in line
    assert "\n" not in line
    if damage == "code":
        assert "system" in line
        assert not list(site.weights.rglob("ran"))
    assert await site.pid() == pid
