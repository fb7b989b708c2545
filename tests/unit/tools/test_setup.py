"""`tools/setup`: what it does when several of it begin at once, and which build of torch it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
    requirements = [
        Path(f"requirements/{name}") for name in ("run.lock", "torch.in", "torch.lock", "totalsegmentator.lock")
    ]
    for path in (Path("tools/setup"), *requirements, *members):
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


TORCH_PIP = """#!/bin/sh
echo "$@" >> pip.log
case "$*" in
*+cpu*) if [ -e no-cpu-build ]; then echo "ERROR: No matching distribution found for torch" >&2; exit 1; fi; echo 2.13.0+cpu > torch ;;
*torch.lock*) echo 2.13.0 > torch ;;
*uninstall*) rm -f torch ;;
esac
"""
TORCH_PYTHON = """#!/bin/sh
case "$*" in *metadata*) cat torch ;; esac
"""


@pytest.fixture
def installed(clone):
    """Give a function that runs `tools/setup totalsegmentator` and returns its end and what pip was asked for."""
    for name, script in (("pip", TORCH_PIP), ("python", TORCH_PYTHON)):
        (clone / ".venv/bin" / name).write_text(script)
        (clone / ".venv/bin" / name).chmod(0o755)
    subprocess.run([clone / "tools/setup", "run"], check=True, capture_output=True, timeout=60)

    def run(*options, **variables):
        (clone / "pip.log").write_text("")
        environment = {name: value for name, value in os.environ.items() if name not in {"CI", "VOXELMILL_TORCH"}}
        done = subprocess.run(
            [clone / "tools/setup", "totalsegmentator", *options],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment | variables,
            check=False,
        )
        return done, [line.split()[-1] for line in (clone / "pip.log").read_text().splitlines()]

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build of torch")
def test_the_model_takes_torch_for_processors_and_comes_once(installed):
    """Asked for by its full name, so that gigabytes for GPUs are never taken by accident; the second time is free."""
    done, asked = installed()
    assert (done.returncode, asked) == (0, ["torch==2.13.0+cpu", "requirements/totalsegmentator.lock"])
    assert installed()[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build of torch")
def test_the_build_for_gpus_is_taken_if_asked_for_and_then_kept(installed, clone):
    """With hashes. A set-up that asks for no build leaves what is there."""
    installed()
    _, asked = installed(VOXELMILL_TORCH="cuda")
    assert asked == ["torch", "requirements/torch.lock", "requirements/totalsegmentator.lock"]
    assert installed(VOXELMILL_TORCH="cuda")[1] == []
    (clone / ".venv/.voxelmill-totalsegmentator").unlink()
    assert installed()[1] == ["requirements/totalsegmentator.lock"]
    done, asked = installed(VOXELMILL_TORCH="rocm")
    assert (done.returncode, asked) == (3, [])
    assert "write cpu or cuda" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build of torch")
def test_where_there_is_no_torch_for_processors_tests_go_on_without_it_but_not_in_ci(installed, clone):
    """One line says how to mend it. What was asked for by name fails."""
    (clone / "no-cpu-build").touch()
    done, asked = installed("--if-possible")
    assert (done.returncode, done.stderr, asked) == (0, "", ["torch==2.13.0+cpu"])
    said = done.stdout.splitlines()[-1]
    assert "find-links, extra-index-url" in said
    assert "tests of the model totalsegmentator are skipped" in said
    for options, variables in ((["--if-possible"], {"CI": "true"}), ([], {})):
        done, _ = installed(*options, **variables)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
    (clone / "no-cpu-build").unlink()
    assert installed("--if-possible")[0].returncode == 0
