"""Series side by side in the segment service: one is computed while the next is read and the last is written."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import psutil
import pytest

from integration.segment_kit import SECONDS, TESTS, Site, announce, segmenting, waiting
from voxelmill_shared.child import Limits
from voxelmill_shared.plan import ModelName
from voxelmill_shared.results import ResultKeys
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.embedded import EmbeddedTransport


@pytest.fixture(autouse=True)
def _phases_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


@pytest.fixture
async def transport(tmp_path):
    transport = EmbeddedTransport(tmp_path / "broker.db")
    yield transport
    await transport.close()


async def test_one_is_computed_while_the_next_is_read_and_the_last_is_written(site, transport):
    """Three series, one device: at one moment the first is being written, the second computed, the third read."""
    series = [await site.series(name) for name in "abc"]
    site.mark("a", "hold")
    async with segmenting(site, transport, segment_device="cpu", segment_ahead=2) as ends:
        for name, event, mark in zip("abc", series, ("computing", "prepared-0", "prepared-0"), strict=True):
            await announce(transport, event)
            await site.until(name, mark)
        assert "computing" not in site.marks("b") | site.marks("c")  # one device, one series
        site.mark("a", "go")
        await site.until("a", "finishing")
        await site.until("b", "computing")
        assert "finished" not in site.marks("a")
        assert "computing" not in site.marks("c")
        site.mark("b", "go")
        await site.until("c", "computing")  # the first is still held: nothing waits for its end
        site.mark("c", "go")
        (site.folder("a") / "hold").unlink()
        assert sorted(await ends.until(3)) == [("job-a", "done"), ("job-b", "done"), ("job-c", "done")]
        computing = {site.who(name, "computing")["pid"] for name in "abc"}
        reading = {site.who(name, "prepared-0")["pid"] for name in "abc"}
        assert len(computing) == 1  # and so its networks stay loaded
        assert not computing & reading
    assert not any(map(psutil.pid_exists, computing | reading))
    for event in series:
        assert await site.stores.results.read(ResultKeys.of(event).stage_record("segment"))
    assert list(site.scratch.root.iterdir()) == []  # not even the temporary files of the children, which were killed


async def test_without_series_ahead_one_child_does_all(site, transport):
    """For small machines: the next series is not read before the last one is written, and one process does it."""
    series = [await site.series(name) for name in "ab"]
    async with segmenting(site, transport, segment_device="cpu", segment_ahead=0) as ends:
        await announce(transport, *series)
        await site.until("a", "computing")
        assert await waiting(transport) == 1
        site.mark("a", "go")
        await site.until("b", "computing")
        assert "finished" in site.marks("a")
        site.mark("b", "go")
        assert await ends.until(2) == [("job-a", "done"), ("job-b", "done")]
    pids = {site.who(name, mark)["pid"] for name in "ab" for mark in ("prepared-0", "computing", "finished")}
    assert len(pids) == 1


async def test_each_gpu_has_a_child_of_its_own(site, transport):
    """Two series are computed at a time, each on its device; the model threshold does not take a place there."""
    series = [await site.series(name, ModelName.TOTALSEGMENTATOR) for name in "ab"]
    classical = await site.series("c")
    async with segmenting(site, transport, segment_device="cuda:0,cuda:3") as ends:
        await announce(transport, *series, classical)
        await asyncio.gather(*(site.until(name, "computing") for name in "abc"))
        assert {site.who(name, "computing")["device"] for name in "ab"} == {"cuda:0", "cuda:3"}
        assert site.who("c", "computing")["device"] == "cpu"
        for name in "abc":
            site.mark(name, "go")
        assert {outcome for _, outcome in await ends.until(3)} == {"done"}


async def test_the_next_volume_is_tried_where_the_model_refuses_the_first(site, transport):
    """Two volumes, both refused: the stage is skipped, for the reason that held for the larger one."""
    series = await site.series("a")
    site.say("a", "refuse")
    async with segmenting(site, transport, segment_device="cpu") as ends:
        await announce(transport, series)
        assert await ends.until(1) == [("job-a", "done")]
    assert {"prepared-0", "prepared-1"} <= site.marks("a")
    assert "finishing" not in site.marks("a")


async def test_what_another_attempt_would_not_change_is_not_tried_again(site, transport):
    """The model itself gave up on the volume: a dead letter with its reason at once."""
    series = await site.series("a")
    site.say("a", "break")
    async with segmenting(site, transport, segment_device="cpu") as ends:
        await announce(transport, series)
        assert await ends.until(1) == [("job-a", "rejected")]
    assert ends.reasons == ["the model gave no numbers"]


ACCIDENTS = {
    "kill": "killed by SIGKILL",
    "segfault": "killed by SIGSEGV",
    "exit": "exit code 3",
    "allocate": "more than its 4096 MiB of memory",
}


async def test_an_accident_of_the_device_child_is_one_attempt(site, transport):
    """Kill -9, a crash, an exit, too much memory: one attempt each, with its reason; other series do not notice.

    It starts five children, one after the other, which takes what their imports take.
    """
    series = [await site.series(name) for name in (*ACCIDENTS, "sound")]
    for name in (*ACCIDENTS, "sound"):
        site.say(name, name if name in ACCIDENTS else "go")
    async with segmenting(site, transport, segment_device="cpu") as ends:
        await announce(transport, *series)
        settled = await ends.until(9)
    for name, words in ACCIDENTS.items():
        assert [outcome for job, outcome in settled if job == f"job-{name}"] == ["retry", "done"]
        assert words in ends.reasons[settled.index((f"job-{name}", "retry"))]
    assert [outcome for job, outcome in settled if job == "job-sound"] == ["done"]


@pytest.mark.rabbitmq
async def test_the_heartbeat_does_not_depend_on_the_child(site, rabbitmq_vhost_url):
    """A child that hangs for longer than the broker waits for a sign of life: the message is not taken from us.

    It takes the seconds that the broker needs to lose its patience.
    """
    transport = open_transport(f"{rabbitmq_vhost_url}?heartbeat=1")
    try:
        series = await site.series("a")
        site.say("a", "hang")
        async with segmenting(site, transport, limits=Limits(4 << 30, 4.0), segment_device="cpu") as ends:
            await announce(transport, series)
            assert await ends.until(2) == [("job-a", "retry"), ("job-a", "done")]
        assert "longer than 4 s" in ends.reasons[0]
    finally:
        await transport.close()


PROGRAM = """
import sys
from voxelmill_segment.service import Targets, build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.main import main

TARGETS = Targets("unit.segment.phases:act", "unit.segment.phases:compute")
main(lambda parts, settings: build(parts, settings, TARGETS), SegmentSettings, "voxelmill-segment")
"""


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.rabbitmq
async def test_on_a_spot_machine_sigterm_hands_the_job_back_at_once(site, rabbitmq_vhost_url):
    """Within a second the message is on its queue again and no child computes, however long the grace; exit code 0."""
    environment = {
        **os.environ,
        "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
        **{f"VOXELMILL_{name.upper()}_URL": str(site.root / name) for name in ("inbox", "work", "results")},
        "VOXELMILL_SCRATCH": str(site.root / "scratch"),
        "VOXELMILL_SEGMENT_DEVICE": "cpu",
        "VOXELMILL_SEGMENT_SPOT": "true",
        "VOXELMILL_GRACE_SECONDS": "600",
    }
    transport = open_transport(rabbitmq_vhost_url)
    await announce(transport, await site.series("a"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        await site.until("a", "computing")
        assert await waiting(transport) == 0
        child = site.who("a", "computing")["pid"]
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        while not (gone(child) and await waiting(transport)):
            assert time.monotonic() - started < SECONDS
            await asyncio.sleep(0.005)
        handed_back = time.monotonic() - started
        async with asyncio.timeout(SECONDS):
            _, log = await process.communicate()
        assert process.returncode == 0, log
        assert b'"outcome": "released"' in log
        assert handed_back < 1.0, handed_back  # the promise; without it, the notice of a spot machine is missed
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
        await transport.close()
