"""`tools/setup`: what it does when several of it begin at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PIP = """#!/bin/sh
echo begins >> pip.log
sleep 0.3
echo ends >> pip.log
"""

PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p .venv/bin; cp pip .venv/bin/pip; touch .venv/pyvenv.cfg; echo made >> pip.log; fi
"""


@pytest.fixture
def clone(tmp_path):
    """What `tools/setup` looks at, with a stand-in for pip that notes when it begins and ends."""
    members = [
        path.relative_to(ROOT)
        for pattern in ("*/pyproject.toml", "services/*/pyproject.toml")
        for path in ROOT.glob(pattern)
    ]
    for path in (Path("tools/setup"), Path("requirements/run.lock"), *members):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    pip = tmp_path / ".venv/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text(PIP)
    pip.chmod(0o755)
    (tmp_path / ".venv/pyvenv.cfg").touch()
    return tmp_path


def test_set_ups_that_begin_at_once_take_turns(clone):
    """Else each would remove what the other is just making. The second one finds everything done."""
    command = [clone / "tools/setup", "run"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert [code for _, _, code in ended] == [0, 0], ended
    assert sum("waiting for it" in said for said, _, _ in ended) == 1
    assert (clone / "pip.log").read_text().split() == ["begins", "ends"] * 2  # the dependencies, then the members


def test_a_half_removed_environment_is_made_anew(clone):
    """Without its `pyvenv.cfg` its pip is the machine's own, and would install into that."""
    shutil.copy(clone / ".venv/bin/pip", clone / "pip")
    (clone / ".venv/pyvenv.cfg").unlink()
    python = clone / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python)}
    subprocess.run([clone / "tools/setup", "run"], check=True, capture_output=True, timeout=60, env=environment)
    assert (clone / "pip.log").read_text().split() == ["made", *["begins", "ends"] * 2]


def test_pip_is_told_to_install_nowhere_but_into_an_environment(clone):
    """Whatever becomes of `.venv` meanwhile."""
    (clone / ".venv/bin/pip").write_text('#!/bin/sh\necho "$PIP_REQUIRE_VIRTUALENV" >> pip.log\n')
    subprocess.run([clone / "tools/setup", "run"], check=True, capture_output=True, timeout=60)
    assert (clone / "pip.log").read_text().split() == ["true", "true"]
