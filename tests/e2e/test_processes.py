"""Every service as a process of its own: how it ends when it cannot begin. What they do together: `test_scale`."""

from __future__ import annotations

import os

import pytest

from e2e.processes import SERVICES, free_port, start


@pytest.mark.parametrize("name", SERVICES)
def test_a_wrong_setting_is_one_clear_line(name):
    """The variable, what is wrong with it, and exit code 2."""
    ended = start(name, {**os.environ, "VOXELMILL_PORT": "70000"}).end(60)
    assert ended.code == 2
    assert ended.err.startswith(f"voxelmill-{name}: VOXELMILL_PORT: ")
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") == 1


def test_a_broker_out_of_reach_is_exit_code_3(tmp_path):
    """A dependency out of reach: its own exit code, and what to do."""
    environment = {
        **os.environ,
        "VOXELMILL_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}/",
        "VOXELMILL_RESULTS_URL": str(tmp_path / "results"),
    }
    ended = start("mesh", environment).end(120)
    assert ended.code == 3, ended.err
    assert "see that it runs and is reachable" in ended.err
    assert "Traceback" not in ended.err
