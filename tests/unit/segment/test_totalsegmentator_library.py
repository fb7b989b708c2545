"""The seam to the TotalSegmentator package: an upgrade that moves what is read there fails here."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from voxelmill_segment.totalsegmentator import library, tasks
from voxelmill_segment.totalsegmentator.library import NotInstalledError
from voxelmill_shared.plan import Resolution

pytestmark = pytest.mark.usefixtures("totalsegmentator")

ROOT = Path(__file__).parents[3]
MIRRORED = {
    # Where the library has no table: `rough_network`, `refining_networks`, `_settings`; then `_parts`, `tile_step`.
    ("python_api", "totalsegmentator"): "b8ff5820be418fe4",
    ("python_api", "get_task_config"): "ab4dd585a7f904f9",
    ("nnunet", "nnUNet_predict_image"): "7518980b99e59505",
    ("nnunet", "nnUNetv2_predict"): "1172be1c7a6d5d4a",
    ("libs", "download_pretrained_weights"): "82bcbb9650d29a88",
}
"""The beginning of the SHA-256 of functions whose choices are repeated in `library.py`."""


def source_digest(module: str, function: str) -> str:
    """The digest of a function's text. Read, not imported: torch is slow."""
    path = Path(importlib.util.find_spec("totalsegmentator").submodule_search_locations[0]) / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    node = next(one for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name == function)
    return hashlib.sha256(ast.get_source_segment(text, node).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("module", "function"), MIRRORED)
def test_what_is_repeated_of_the_librarys_choices_is_still_theirs(module: str, function: str) -> None:
    """If not: read what has changed in the function, carry it over into `library.py`, then write the new digest here."""
    assert source_digest(module, function) == MIRRORED[module, function]


def test_the_extra_pins_the_version_that_is_promised() -> None:
    """The package's metadata and the code name the same one, and it is installed."""
    project = tomllib.loads((ROOT / "services/segment/pyproject.toml").read_text())["project"]
    assert f"TotalSegmentator=={library.VERSION}" in project["optional-dependencies"]["totalsegmentator"]
    assert library.installed_version() == library.VERSION


def test_another_version_is_refused_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are promised for one version."""
    monkeypatch.setattr(library, "VERSION", "1.0.0")
    with pytest.raises(
        NotInstalledError, match=r"needs TotalSegmentator 1\.0\.0, installed is .*: make setup-totalsegmentator"
    ):
        library.require()


@pytest.mark.parametrize("absent", ["totalsegmentator", "nnunetv2", "torch"])
def test_without_the_extra_there_is_one_clear_line(absent: str) -> None:
    """Whatever part of it is missing, and nothing of it is imported to find out."""
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {absent!r} else find(name, *a)
from voxelmill_segment.totalsegmentator import library, tasks
from voxelmill_shared.plan import Plan
try:
    tasks.resolve(Plan(), "CT")
except library.NotInstalledError as error:
    print(error)
print([name for name in ("torch", "nnunetv2", "totalsegmentator") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.splitlines() == [
        "the model totalsegmentator is not installed: make setup-totalsegmentator (in a clone), or pip install 'voxelmill-segment[totalsegmentator]'",
        "[]",
    ]


def test_asking_needs_no_torch() -> None:
    """Tables are read in milliseconds; torch takes seconds and hundreds of megabytes.

    The errors too: they are read in the service's own process, which holds the broker's heartbeat.
    """
    code = """
import sys
from voxelmill_segment.totalsegmentator import errors, tasks
from voxelmill_shared.plan import Plan
tasks.resolve(Plan(), "CT")
print([name for name in ("torch", "nnunetv2", "nibabel", "numpy", "requests") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "[]\n"


def test_total_of_a_ct_is_five_networks_that_make_117_classes() -> None:
    """Each class comes from one network, under the label that the task has for it."""
    networks = library.networks("total")
    assert [network.dataset for network in networks] == [291, 292, 293, 294, 295]
    made = [label for network in networks for _, label in network.labels]
    assert sorted(made) == list(library.classes("total")) == list(range(1, 118))
    assert {network.spacing for network in networks} == {(1.5, 1.5, 1.5)}
    assert networks[1].path == (
        "Dataset292_TotalSegmentator_part2_vertebrae_1532subj/nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
    )


@pytest.mark.parametrize(
    ("task", "resolution", "dataset", "spacing"),
    [
        ("total", Resolution.FAST, 297, 3.0),
        ("total", Resolution.FASTEST, 298, 6.0),
        ("total_mr", Resolution.FAST, 852, 3.0),
        ("body", Resolution.FAST, 300, 6.0),
    ],
)
def test_coarse_grids_are_one_network(task: str, resolution: Resolution, dataset: int, spacing: float) -> None:
    """Its labels are the task's own."""
    (network,) = library.networks(task, resolution)
    assert (network.dataset, network.spacing) == (dataset, (spacing,) * 3)
    assert all(ours == theirs for ours, theirs in network.labels)
    assert len(network.labels) == len(library.classes(task))


def test_a_resolution_that_a_task_lacks_is_an_error_here() -> None:
    """`tasks.resolve` answers it for people."""
    with pytest.raises(KeyError):
        library.networks("lung_vessels", Resolution.FAST)


def test_every_task_has_a_place_on_one_of_our_lists() -> None:
    """A task that a new version brings is looked at by a person before anybody can ask for it."""
    lists = [set(tasks.OPEN), set(tasks.NON_COMMERCIAL), set(tasks.REFUSED)]
    licensed = {task for task in library.tasks() if library.licensed(task)}
    assert set(library.tasks()) == set.union(*lists) | licensed
    assert set(tasks.OPEN) & licensed == set()
    assert set(tasks.OPEN) & set(tasks.REFUSED) == set()


@pytest.mark.parametrize("task", tasks.OPEN)
def test_open_tasks_can_be_downloaded_and_named(task: str) -> None:
    """Each network has an address, a folder of nnU-Net's name, and classes with numbers of one byte."""
    for network in tasks.networks_of(task):
        assert re.fullmatch(rf"Dataset{network.dataset:03d}_\w+", network.folder)
        assert library.download_address(network).startswith("https://github.com/wasserth/TotalSegmentator/releases/")
    classes = library.classes(task)
    assert classes
    assert all(1 <= label <= 255 and re.fullmatch(r"\w+", name) for label, name in classes.items())
    assert library.modality(task) in {"CT", "MR"}


def test_the_library_fetches_from_where_we_say() -> None:
    """Our address of the releases is the one in its source."""
    path = Path(importlib.util.find_spec("totalsegmentator").submodule_search_locations[0]) / "libs.py"
    assert f'"{library.RELEASES}"' in path.read_text()


def test_every_distribution_of_the_extra_is_installed() -> None:
    """Where one is missing the model is not installed."""
    for name in ("TotalSegmentator", "nnunetv2", "torch"):
        assert importlib.metadata.version(name)
