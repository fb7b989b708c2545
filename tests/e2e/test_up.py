"""`voxelmill up`: files are put into a folder and nothing else; SIGTERM drains; kill -9 loses nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing, contextmanager
from dataclasses import dataclass

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


def test_files_put_into_the_inbox_are_worked_on_and_a_late_slice_makes_a_new_revision(series, coarse, tmp_path):
    """Copy a series into the folder: its results appear; health answers; SIGTERM ends with exit code 0.

    Slices that come after a series was complete: revision 2, and revision 1 still stands.
    """
    data = tmp_path / "data"
    with up(data, VOXELMILL_QUIET_SECONDS="2") as process:
        said = lines_until(process, "health and metrics on")
        address = said[-1].split(" on ")[1].split(";")[0]
        with urllib.request.urlopen(f"{address}/readyz", timeout=10) as answer:
            assert json.load(answer)["ready"] is True
        shutil.copytree(series, data / "inbox" / "chest")
        wait_for(lambda: len(receipts(data)) == 1)
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
            assert b'voxelmill_messages_settled_total{outcome="done",service="mesh"' in answer.read()
        (whole,) = receipts(data)
        *others, late = sorted(coarse.iterdir())
        for path in others:
            shutil.copy(path, data / "inbox")
        wait_for(lambda: len(receipts(data)) == 2)
        shutil.copy(late, data / "inbox")
        wait_for(lambda: len(receipts(data)) == 3)
    assert process.returncode == 0
    assert len(json.loads(whole.read_text())["inputs"]) == 44
    first, second = [path for path in receipts(data) if path != whole]
    assert (first.parts[-3], second.parts[-3]) == ("r1", "r2")
    assert len(json.loads(second.read_text())["inputs"]) == 24
    listed = voxelmill("status", "--data", data, "--json").document["series"]
    found = {one["instances"]: one for one in listed}
    assert {one["job"]["status"] for one in listed} == {"complete"}
    assert (found[24]["revisions"], found[24]["job"]["revision"]) == (2, 2)
    one = voxelmill("status", found[44]["job"]["job"], "--data", data)
    assert one.code == 0
    assert "mesh: done" in one.out


def test_a_second_process_on_the_same_folder_or_port_is_refused(tmp_path):
    """Two at once: one clear line, the next step in it, and exit code 3 or 2."""
    with up(tmp_path / "one") as process:
        port = lines_until(process, "health and metrics on")[-1].split(":")[2].split(";")[0]
        same_folder = voxelmill("up", "--data", tmp_path / "one", "--port", "0")
        assert same_folder.code == 3
        assert "in use by another voxelmill process" in same_folder.err
        same_port = voxelmill("up", "--data", tmp_path / "two", "--port", port)
        assert same_port.code == 2
        assert "choose another port with --port" in same_port.err


@dataclass(frozen=True)
class Kill:
    """One kill that hit unfinished work: when, what stood then, and what was under way."""

    seconds: float
    standing: dict[str, str]

    def __str__(self) -> str:
        stages = ", ".join(sorted(name.rpartition("/")[2].removesuffix(".json") for name in self.standing))
        return f"killed {self.seconds:.2f} s after it was ready; done so far: {stages or 'no stage'}"


def records(data):
    """The stages' records, by their paths: each holds the times of its work, so doing it again changes the digest."""
    return {name: digest for name, digest in digests(data).items() if "/stages/" in name}


def kill_at(data, seconds):
    """Let it work for so long after it is ready, kill it, and say how; None if the receipt stood before."""
    with up(data) as process:
        lines_until(process, "health and metrics on")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not receipts(data):
            time.sleep(0.002)  # the moment of the fault, not a wait for something
        process.send_signal(signal.SIGKILL)
        process.wait()
    return None if receipts(data) else Kill(seconds, records(data))


def is_complete(data):
    """Whether the catalog says so; it does after the receipt stands."""
    with closing(sqlite3.connect(f"file:{data}/voxelmill.db?mode=ro", uri=True)) as catalog:
        return catalog.execute("SELECT status FROM catalog_jobs").fetchall() == [("complete",)]


def finish(data):
    """Let it work to its end; return how long it took until the receipt stood, from when it was ready."""
    with up(data) as process:
        lines_until(process, "health and metrics on")
        started = time.monotonic()
        wait_for(lambda: receipts(data))
        usual = time.monotonic() - started
        wait_for(lambda: is_complete(data))
    assert process.returncode == 0
    return usual


def check_finished(data, standing, expected):
    """The same artefacts as without a kill, nothing besides, and no settled stage done anew."""
    assert artefact_digests(data) == expected
    assert standing.items() <= records(data).items()
    (receipt,) = receipts(data)
    assert set(digests(receipt.parent)) == {
        "manifest.json",
        "receipt.json",
        *(f"stages/{stage}.json" for stage in ("thumbnail", "segment", "mesh")),
        *expected,
    }
    status = voxelmill("status", "--data", data, "--json").document
    assert [found["job"]["status"] for found in status["series"]] == ["complete"]
    assert status["objects"] == {"validated": 44, "rejected": 0, "skipped": 0, "failed": 0}


def test_kill_9_at_random_moments_loses_nothing_and_repeats_nothing(series, tmp_path):
    """Every kill hits unfinished work, one in each part of its duration: the same artefacts, no settled stage anew.

    The moments are drawn, one from each of as many equal parts of the usual duration as there are kills, and come in
    random order. What one process has settled the next one finds, so late moments may come after the end: that kill
    does not count, the finished work is looked at, and the moment is taken again on a fresh copy.
    """
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(series, undisturbed / "inbox" / "chest")
    usual = finish(undisturbed)
    expected = artefact_digests(undisturbed)

    seed = int(os.environ.get("VOXELMILL_TEST_SEED", str(random.SystemRandom().randrange(1 << 30))))
    print(f"seed {seed}, {usual:.2f} s without a kill")  # shown if the test fails
    drawn = random.Random(seed)
    moments = [usual * (part + drawn.random()) / KILLS for part in range(KILLS)]
    drawn.shuffle(moments)
    kills: list[Kill] = []
    copies = 0
    while len(kills) < KILLS:
        copies += 1
        assert copies <= 3 * KILLS, f"it is done before it can be killed: {moments}"
        data = tmp_path / f"copy{copies}"
        shutil.copytree(series, data / "inbox" / "chest")
        standing: dict[str, str] = {}
        hits = 0
        while len(kills) < KILLS and (kill := kill_at(data, moments[len(kills)])):
            assert standing.items() <= kill.standing.items()
            standing = kill.standing
            kills.append(kill)
            hits += 1
            print(f"copy {copies}: {kill}")
        if receipts(data) and not hits:
            moments[len(kills)] *= 0.8  # this time it was faster than the first
        finish(data)
        check_finished(data, standing, expected)
    assert len({kill.seconds for kill in kills}) == KILLS
