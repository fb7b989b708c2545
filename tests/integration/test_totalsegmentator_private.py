"""The model totalsegmentator leaves the user's home alone and calls nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from conftest import missing
from integration.totalsegmentator_kit import HERE, WEIGHTS
from voxelmill_segment.totalsegmentator import library

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import os, socket, sys, tempfile
from pathlib import Path

def forbidden(*_, **__):
    raise AssertionError("a socket was opened")

class Forbidden(socket.socket):
    __init__ = forbidden

socket.socket, socket.create_connection, socket.getaddrinfo = Forbidden, forbidden, forbidden
from integration.totalsegmentator_kit import small_torso
from voxelmill_segment.segmenter import open_segmenter
from voxelmill_segment.totalsegmentator.weights import MissingWeightsError
from voxelmill_shared.plan import Plan

def segment(**wanted):
    plan = Plan(model="totalsegmentator", **wanted)
    return open_segmenter(plan).segment(small_torso(), plan, lambda _: None)

assert segment(resolution="fastest").labels.any()
try:
    segment(task="trunk_cavities")
except MissingWeightsError as error:
    assert "Dataset343" in str(error), error
else:
    raise AssertionError("weights came from nowhere")

from voxelmill_segment.totalsegmentator.home import refuse_downloads, work_folder
from totalsegmentator import libs, python_api

refuse_downloads()
for module in (libs, python_api):
    try:
        module.download_pretrained_weights(343)
    except MissingWeightsError as error:
        assert "Dataset343" in str(error), error
    else:
        raise AssertionError("it would have been downloaded")
assert '"send_usage_stats": false' in (work_folder().parent / "config.json").read_text()
print("home", work_folder().parent)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run in a process whose home cannot be written and whose sockets are forbidden; its home, and what it said."""
    if library.installed_version() is None:
        missing("TotalSegmentator is not installed (tools/setup totalsegmentator)")
    home, scratch = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("scratch")
    (scratch / "voxelmill-totalsegmentator-999999999-left").mkdir()  # of a process that was killed
    home.chmod(0o500)
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("VOXELMILL_", "XDG_", "nnUNet_"))}
    environment = {
        **keep,
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "VOXELMILL_WEIGHTS": str(WEIGHTS),
        "VOXELMILL_SEGMENT_DEVICE": "cpu",
        "PYTHONPATH": str(HERE.parent),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return home, done.stdout


def test_home_stays_empty(finished: tuple[Path, str]) -> None:
    """Nothing is written to the user's home (as root a folder's mode forbids nothing, so it is looked at too)."""
    home, _ = finished
    assert list(home.iterdir()) == []


def test_own_home_goes_with_its_process(finished: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The private home lies among the temporary files and is gone in the end, and so is what a killed process left."""
    _, said = finished
    home = said.split("home ")[1].strip()
    assert "/scratch" in home
    assert not os.path.exists(home)  # noqa: PTH110 - a string from another process
    assert "999999999" not in "".join(os.listdir(os.path.dirname(home)))  # noqa: PTH120, PTH208 - as above
