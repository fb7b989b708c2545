"""`voxelmill up`: files are put into a folder and nothing else; SIGTERM drains; kill -9 loses nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import psutil
import pytest

from e2e.background import background
from e2e.command import digests, voxelmill
from e2e.sharing import once

KILLS = int(os.environ.get("VOXELMILL_TEST_KILLS", "3"))
"""How often the process is killed; the issue's figure is made with 10."""
STAGES = ("thumbnail", "segment", "mesh")
STAGE_CPU_SECONDS = 2.0
"""About what each of the stages uses. Where it uses less, moments that come too late are taken earlier and earlier."""
LOOK_SECONDS = 0.005
MOST_COPIES = 12
"""A stage that is over too soon for so many halvings is one that no kill can hit."""


@contextmanager
def up(data, **environment):
    """Run `voxelmill up` on a folder with a free port, until it is ready; give it and its address.

    In the end SIGTERM drains it, unless it was killed.
    """
    arguments = ("up", "--data", data, "--organ", "bones", "--port", "0")
    with background(*arguments, VOXELMILL_GEOMETRY_SECONDS="1", **environment) as process:
        yield process, process.line_with("look at them on").split(" on ")[1].split(";")[0]
        assert process.end(signal.SIGTERM) in {0, -signal.SIGKILL}, process.errors


def receipts(data):
    return sorted((data / "results").rglob("receipt.json"))


def wait_for(condition, seconds=240, pause=0.05):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(pause)
    pytest.fail(f"not so after {seconds} s")


def artefact_digests(receipt):
    """What was made: SHA-256 by name."""
    return {artefact["name"]: artefact["sha256"] for artefact in json.loads(receipt.read_text())["artefacts"]}


def read(address):
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def watched(small, tmp_path_factory):
    """A folder into which a series was put, its last slice when the others were done; and what was seen meanwhile."""

    def work(made):
        data = made / "data"
        *others, late = sorted(small[0].iterdir())
        with up(data, VOXELMILL_QUIET_SECONDS="2") as (process, address):
            told = {"ready": json.loads(read(f"{address}/readyz"))["ready"]}
            refused = {
                "folder": voxelmill("up", "--data", data, "--port", "0"),
                "port": voxelmill("up", "--data", made / "two", "--port", address.rpartition(":")[2]),
            }
            told["refused"] = {of: [ended.code, ended.err] for of, ended in refused.items()}
            (data / "inbox" / "chest").mkdir()
            for path in others:
                shutil.copy(path, data / "inbox" / "chest")
            wait_for(lambda: len(receipts(data)) == 1)
            told["metrics"] = read(f"{address}/metrics")
            told["first"] = digests(receipts(data)[0].parent)
            shutil.copy(late, data / "inbox")
            wait_for(lambda: len(receipts(data)) == 2 and is_complete(data))
            told["code"] = process.end(signal.SIGTERM)
        return told

    made, told = once(tmp_path_factory, "watched", work)
    return made / "data", told


def test_files_put_into_the_inbox_are_worked_on_and_a_late_slice_makes_a_new_revision(watched):
    """Copy a series into the folder: its results appear; health answers; SIGTERM ends with exit code 0.

    A slice that comes after a series was complete: revision 2, and revision 1 still stands.
    """
    data, told = watched
    assert told["ready"] is True
    assert 'voxelmill_messages_settled_total{outcome="done",service="mesh"' in told["metrics"]
    assert told["code"] == 0
    first, second = receipts(data)
    assert (first.parts[-3], second.parts[-3]) == ("r1", "r2")
    assert [len(json.loads(receipt.read_text())["inputs"]) for receipt in (first, second)] == [9, 10]
    assert digests(first.parent) == told["first"]
    (series,) = voxelmill("status", "--data", data, "--json").document["series"]
    assert (series["instances"], series["revisions"]) == (10, 2)
    assert (series["job"]["status"], series["job"]["revision"]) == ("complete", 2)
    one = voxelmill("status", series["job"]["job"], "--data", data)
    assert one.code == 0
    assert "mesh: done" in one.out


@pytest.mark.parametrize(
    ("of", "code", "words"),
    [("folder", 3, "in use by another voxelmill process"), ("port", 2, "choose another port with --port")],
)
def test_a_second_process_on_the_same_folder_or_port_is_refused(watched, of, code, words):
    """Two at once: one clear line, the next step in it, and exit code 3 or 2."""
    _, told = watched
    ended, said = told["refused"][of]
    assert ended == code
    assert words in said
    assert said.count("\n") == 1


def records(data):
    """The stages' records, by their paths: each holds the times of its work, so doing it again changes the digest."""
    return {name: digest for name, digest in digests(data).items() if "/stages/" in name}


def worked(processes):
    """How much processor time they have used: how slow or busy the machine is changes it little."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:2])
    return seconds


@dataclass(frozen=True)
class Moment:
    """When to kill: that many stages have settled, and since then the process has worked so much on the others."""

    settled: int
    cpu_seconds: float


def draw_moments(drawn):
    """Draw one moment for each kill: among equal parts of the work, in their order."""
    moments = []
    for kill in range(KILLS):
        settled, part = divmod(len(STAGES) * (kill + drawn.random()) / KILLS, 1)
        moments.append(Moment(int(settled), STAGE_CPU_SECONDS * part))
    return moments


def settled(data):
    """How many stages have settled."""
    return len([*(data / "results").rglob("stages/*.json")])


def kill_at(data, moment):
    """Kill it at that moment; return the records that stood then, None if all of its work was done before."""
    with up(data) as (process, _):
        main = psutil.Process(process.fork.pid)
        watched = [main, *main.children()]  # they have all started
        wait_for(lambda: settled(data) >= moment.settled, pause=LOOK_SECONDS)
        enough = worked(watched) + moment.cpu_seconds
        wait_for(lambda: settled(data) > moment.settled or worked(watched) >= enough, pause=LOOK_SECONDS)
        process.end(signal.SIGKILL)
    return None if receipts(data) else records(data)


def is_complete(data):
    """Whether the catalog says so of every job; it does after the receipt stands."""
    with closing(sqlite3.connect(f"file:{data}/voxelmill.db?mode=ro", uri=True)) as catalog:
        return {status for (status,) in catalog.execute("SELECT status FROM catalog_jobs")} == {"complete"}


def check_finished(data, standing, expected):
    """Let it work to its end: the artefacts of a process that was not killed, nothing besides, and nothing done anew."""
    with up(data) as (process, _):
        wait_for(lambda: receipts(data) and is_complete(data))
        assert process.end(signal.SIGTERM) == 0
    (receipt,) = receipts(data)
    assert artefact_digests(receipt) == expected
    assert standing.items() <= records(data).items()
    named = {"manifest.json", "receipt.json", *(f"stages/{stage}.json" for stage in STAGES)}
    assert set(digests(receipt.parent)) == {*named, *expected}
    status = voxelmill("status", "--data", data, "--json").document
    assert [found["job"]["status"] for found in status["series"]] == ["complete"]
    assert status["objects"] == {"validated": 10, "rejected": 0, "skipped": 0, "failed": 0}


def test_kill_9_at_random_moments_loses_nothing_and_repeats_nothing(small, watched, tmp_path, seed):
    """Every kill hits unfinished work, as many in each stage: the same artefacts, no settled stage anew.

    The moments are drawn, one from each of as many equal parts of the work as there are kills. One that comes when
    another stage has settled comes too late: it is taken again on a fresh copy, in half the time.
    """
    expected = artefact_digests(receipts(watched[0])[-1])
    print(f"seed {seed}")  # shown if the test fails
    moments = draw_moments(random.Random(seed))
    copies = 0
    while moments:
        copies += 1
        assert copies <= MOST_COPIES, f"settled before it can be killed: {moments}"
        data = tmp_path / f"copy{copies}"
        shutil.copytree(small[0], data / "inbox" / "chest")
        standing: dict[str, str] = {}
        while moments:
            found = kill_at(data, moments[0])
            if found is not None:
                assert standing.items() <= found.items()
                standing = found
            print(f"copy {copies}: killed at {moments[0]}, {'all done' if found is None else f'{len(found)} settled'}")
            if found is None or len(found) > moments[0].settled:
                moments[0] = Moment(moments[0].settled, moments[0].cpu_seconds / 2)
                break
            del moments[0]
        check_finished(data, standing, expected)
