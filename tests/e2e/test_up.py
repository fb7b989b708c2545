"""`voxelmill up`: files are put into a folder and nothing else; SIGTERM drains; kill -9 loses nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest

from e2e.command import VOXELMILL, digests, voxelmill

KILLS = int(os.environ.get("VOXELMILL_TEST_KILLS", "3"))
"""How often the process is killed; the issue's figure is made with 10."""


@contextmanager
def up(data, **environment):
    """Run `voxelmill up` on a folder with a free port; end it by SIGTERM if it still lives."""
    process = subprocess.Popen(
        [*VOXELMILL, "up", "--data", str(data), "--organ", "lungs", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VOXELMILL_GEOMETRY_SECONDS": "1", **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        out, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        process.said = out


def lines_until(process, words):
    """Read what the process says until a line holds `words`."""
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return said
    pytest.fail(f"ended without saying {words!r}: {said} {process.stderr.read()}")


def receipts(data):
    return sorted((data / "results").rglob("receipt.json"))


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"not so after {seconds} s")


def artefact_digests(data):
    """What was made: SHA-256 by name."""
    (receipt,) = receipts(data)
    return {artefact["name"]: artefact["sha256"] for artefact in json.loads(receipt.read_text())["artefacts"]}


def test_files_put_into_the_inbox_are_worked_on(series, tmp_path):
    """Copy a series into the folder: its results appear; health answers; SIGTERM ends with exit code 0."""
    data = tmp_path / "data"
    with up(data) as process:
        said = lines_until(process, "health and metrics on")
        address = said[-1].split(" on ")[1].split(";")[0]
        with urllib.request.urlopen(f"{address}/readyz", timeout=10) as answer:
            assert json.load(answer)["ready"] is True
        shutil.copytree(series, data / "inbox" / "chest")
        wait_for(lambda: receipts(data))
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
            assert b'voxelmill_messages_settled_total{outcome="done",service="mesh"' in answer.read()
    assert process.returncode == 0
    status = voxelmill("status", "--data", data, "--json")
    (found,) = status.document["series"]
    assert found["instances"] == 44
    assert found["job"]["status"] == "complete"
    one = voxelmill("status", found["job"]["job"], "--data", data)
    assert one.code == 0
    assert "mesh: done" in one.out


def test_a_late_slice_makes_a_new_revision(series, tmp_path):
    """Slices that come after the series was complete: revision 2, and revision 1 still stands."""
    data = tmp_path / "data"
    paths = sorted(series.iterdir())
    with up(data, VOXELMILL_QUIET_SECONDS="2") as process:
        lines_until(process, "health and metrics on")
        (data / "inbox").mkdir(exist_ok=True)
        for path in paths[:-1]:
            shutil.copy(path, data / "inbox")
        wait_for(lambda: len(receipts(data)) == 1)
        shutil.copy(paths[-1], data / "inbox")
        wait_for(lambda: len(receipts(data)) == 2)
    first, second = receipts(data)
    assert (first.parts[-3], second.parts[-3]) == ("r1", "r2")
    assert len(json.loads(second.read_text())["inputs"]) == 44
    (found,) = voxelmill("status", "--data", data, "--json").document["series"]
    assert (found["revisions"], found["job"]["revision"], found["job"]["status"]) == (2, 2, "complete")


def test_a_second_process_on_the_same_folder_is_refused(tmp_path):
    """Two at once: one clear line and exit code 3."""
    with up(tmp_path / "data") as process:
        lines_until(process, "health and metrics on")
        second = voxelmill("up", "--data", tmp_path / "data", "--port", "0")
        assert second.code == 3
        assert "in use by another voxelmill process" in second.err


def test_a_taken_port_is_one_clear_line(tmp_path):
    """The next step stands in the line."""
    with up(tmp_path / "one") as process:
        port = lines_until(process, "health and metrics on")[-1].split(":")[2].split(";")[0]
        second = voxelmill("up", "--data", tmp_path / "two", "--port", port)
        assert second.code == 2
        assert "choose another port with --port" in second.err


def test_kill_9_at_random_moments_loses_nothing_and_repeats_nothing(series, tmp_path):
    """Killed again and again in the middle of the work: the same artefacts in the end, and no settled stage done anew."""
    undisturbed = tmp_path / "undisturbed"
    with up(undisturbed) as process:
        lines_until(process, "health and metrics on")
        shutil.copytree(series, undisturbed / "inbox" / "chest")
        started = time.monotonic()
        wait_for(lambda: receipts(undisturbed))
        usual = time.monotonic() - started

    seed = int(os.environ.get("VOXELMILL_TEST_SEED", str(random.SystemRandom().randrange(1 << 30))))
    print(f"seed {seed}")  # shown if the test fails
    moments = random.Random(seed)
    data = tmp_path / "killed"
    shutil.copytree(series, data / "inbox" / "chest")
    standing: dict[str, str] = {}
    for _ in range(KILLS):
        with up(data) as process:
            lines_until(process, "health and metrics on")
            time.sleep(moments.uniform(0.0, usual / 2))  # the moment of the fault, not a wait for something
            process.send_signal(signal.SIGKILL)
            process.wait()
        records = {
            path.relative_to(data).as_posix(): digest
            for path, digest in ((data / name, d) for name, d in digests(data).items())
            if path.parent.name == "stages"
        }
        assert standing.items() <= records.items()
        standing = records
    with up(data) as process:
        lines_until(process, "health and metrics on")
        wait_for(lambda: receipts(data))
    assert process.returncode == 0
    assert artefact_digests(data) == artefact_digests(undisturbed)
    final = digests(data)
    assert standing.items() <= final.items()  # a record that stood was not written again: its stage was not done again
    (receipt,) = receipts(data)
    assert set(digests(receipt.parent)) == {
        "manifest.json",
        "receipt.json",
        *(f"stages/{stage}.json" for stage in ("thumbnail", "segment", "mesh")),
        *(artefact["name"] for artefact in json.loads(receipt.read_text())["artefacts"]),
    }
    status = voxelmill("status", "--data", data, "--json").document
    assert [found["job"]["status"] for found in status["series"]] == ["complete"]
    assert status["objects"] == {"validated": 44, "rejected": 0, "skipped": 0, "failed": 0}
