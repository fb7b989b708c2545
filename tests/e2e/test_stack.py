"""`make up` and `make down`: the real servers and every service here, and a folder put through S3 into them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from servers.postgresql import programs
from servers.seaweedfs import S3Server, weed_program
from stack import say
from stack.folder import Folder
from stack.processes import Process

TOOLS = Path(__file__).parents[2] / "tools"
ONLY_MESH = "ingest=0 thumbnail=0 segment=0 index=0 gateway=0"


def begin(command, folder, *arguments):
    """Begin one command of the stack, as `make` does."""
    environment = {
        "PYTHONPATH": str(TOOLS),
        "VOXELMILL_ORGAN": "bones",
        "VOXELMILL_FORMATS": '["stl"]',
        "VOXELMILL_GEOMETRY_SECONDS": "1",
        "VOXELMILL_RECONCILE_SECONDS": "0",  # the store's stream of changes alone tells of the objects
    }
    return subprocess.Popen(
        [sys.executable, "-m", "stack", command, f"--dir={folder}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process):
    """Wait for a command; return its exit code and what it said. No traceback may ever be seen."""
    said, errors = process.communicate(timeout=150)
    assert "Traceback" not in errors, errors
    return process.returncode, said, errors


def run(command, folder, *arguments):
    return finish(begin(command, folder, *arguments))


@pytest.fixture
def folder(rabbitmq_installed, tmp_path):
    """Give a folder for an installation, with a space in its path; end what runs there."""
    weed_program()
    programs()
    folder = Folder(tmp_path / "an installation")
    try:
        yield folder
    finally:
        logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in folder.logs.glob("*.log"))
        assert run("down", folder.root)[0] == 0, logs
        assert [process for process in folder.started() if process.family()] == []


def up(folder, scale=""):
    code, said, errors = run("up", folder.root, f"--scale={scale}")
    assert code == 0, errors
    return said


def client(folder):
    """Give a boto3 client with what the file of variables says, and nothing else."""
    variables = say.read_env(folder)
    return S3Server(
        variables["AWS_ENDPOINT_URL"], variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]
    ).client()


def keys(s3):
    return [found["Key"] for found in s3.list_objects_v2(Bucket="results").get("Contents", ())]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    return pytest.fail(f"not so after {seconds} s")


def entry(folder, name):
    state = json.loads(folder.state.read_text())
    return next(found for found in state["processes"] if found["name"] == name)


@pytest.mark.rabbitmq
@pytest.mark.s3
@pytest.mark.postgresql
def test_a_folder_put_through_s3_and_nothing_else(folder, small):
    """Up, put: results with their digests. A killed service comes back. Down: nothing left. Up: the data is there."""
    twice = [begin("up", folder.root) for _ in range(2)]  # at once: one of them starts, both say where everything is
    ended = [finish(process) for process in twice]
    assert [code for code, _, _ in ended] == [0, 0], ended
    said, other = sorted((said for _, said, _ in ended), key=lambda said: "runs already" in said)
    assert "Voxelmill runs already." in other
    assert "starting" in said
    assert stat.S_IMODE(folder.env.stat().st_mode) == 0o600
    s3 = client(folder)
    files = sorted(small[0].iterdir())
    for path in files:
        s3.upload_file(str(path), "inbox", f"chest ct/{path.name}")
    (receipt,) = wait_for(lambda: [key for key in keys(s3) if key.endswith("/receipt.json")])
    document = json.loads(s3.get_object(Bucket="results", Key=receipt)["Body"].read())
    assert len(document["inputs"]) == len(files)
    assert {stage["outcome"] for stage in document["stages"].values()} == {"done"}
    made = {}
    for artefact in document["artefacts"]:
        body = s3.get_object(Bucket="results", Key=f"{receipt.rpartition('/')[0]}/{artefact['name']}")["Body"].read()
        made[artefact["name"]] = hashlib.sha256(body).hexdigest()
    assert made == {artefact["name"]: artefact["sha256"] for artefact in document["artefacts"]}
    assert any(name.endswith(".stl") for name in made)

    again = up(folder, scale="mesh=2")
    assert again.startswith("Voxelmill runs already.\nIt runs with SCALE=")
    for one in (other, again):
        assert said.split("\n\n", 1)[1] == one.split("\n\n", 1)[1]

    mesh = entry(folder, "mesh-1")
    os.kill(mesh["pid"], signal.SIGKILL)
    wait_for(lambda: (now := entry(folder, "mesh-1"))["ready"] and now["pid"] != mesh["pid"])
    assert run("ps", folder.root)[0] == 0

    before = folder.started()
    assert len(before) == 10
    code, down, errors = run("down", folder.root)
    assert (code, errors) == (0, "")
    assert "not every service" not in down
    assert [process for process in before if process.family()] == []
    assert run("down", folder.root) == (0, f"nothing runs in {folder.root}\n", "")

    listed = f"endpoint            {s3.meta.endpoint_url}"
    s3.close()
    assert listed in said
    up(folder, ONLY_MESH)
    s3 = client(folder)
    assert receipt in keys(s3)
    s3.close()

    # A supervisor that is killed leaves nothing behind, at the latest after `down`.
    before = folder.started()
    assert {process.name for process in before} == {"epmd", "rabbitmq", "seaweedfs", "postgresql", "mesh-1"}
    Process(**json.loads(folder.state.read_text())["supervisor"]).ask(signal.SIGKILL)
    assert run("down", folder.root)[0] == 0
    assert [process for process in before if process.family()] == []
