"""Scratch folders: what a killed process left is removed, what is in use is not."""

from __future__ import annotations

import os
import subprocess

import pytest

from voxelmill_shared.errors import DiskFullError
from voxelmill_shared.parts import Scratch


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Also if it had our own number, as in a container that is started again; other things stay."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f"mesh-{ended.pid}-abc").mkdir()
    (tmp_path / f"mesh-{os.getpid()}-abc" / "inside").mkdir(parents=True)
    (tmp_path / f"mesh-{os.getppid()}-abc").mkdir()
    (tmp_path / "numba").mkdir()
    Scratch(tmp_path).sweep()
    assert {folder.name for folder in tmp_path.iterdir()} == {f"mesh-{os.getppid()}-abc", "numba"}


def test_a_folder_in_use_is_left_alone_and_ends_with_its_use(tmp_path):
    """Two services in one process share the root."""
    scratch = Scratch(tmp_path)
    with scratch.folder("segment") as folder:
        Scratch(tmp_path).sweep()
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


async def test_below_the_mark_no_work_begins_and_readiness_says_so(tmp_path):
    """The line names the folder, what is free, and the setting; nothing is made."""
    root = tmp_path / "not yet" / "scratch"
    scratch = Scratch(root, free_bytes=1 << 60)
    with pytest.raises(DiskFullError, match=r"scratch: \d+ MiB are free, .*VOXELMILL_SCRATCH_FREE_MIB"):
        await scratch.check()
    with pytest.raises(DiskFullError), scratch.folder("mesh"):
        pass
    assert not root.exists()


@pytest.mark.parametrize("mark", [0, 1])
async def test_above_the_mark_or_without_one_work_begins(tmp_path, mark):
    """0 is for nobody looks."""
    scratch = Scratch(tmp_path, free_bytes=mark)
    await scratch.check()
    with scratch.folder("mesh") as folder:
        assert folder.is_dir()
