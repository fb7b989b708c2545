"""Work in a child process: whatever it does, the parent gets an answer or one clear reason."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from voxelmill_shared.child import Child, ChildFailedError, ChildPool, Limits
from voxelmill_shared.errors import DiskFullError
from voxelmill_shared.work import NotApplicableError, UnsupportedSeriesError

TARGET = "child_targets:act"
LIMITS = Limits(memory_bytes=1 << 30, seconds=20)


@pytest.fixture(autouse=True)
def _targets_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
async def child():
    child = Child(TARGET, LIMITS)
    yield child
    await child.close()


async def test_returns_what_the_function_returns_and_keeps_the_process(child):
    """Imports are paid once: the second call runs in the same process."""
    assert await child.call(("echo", {"a": b"bytes"})) == {"a": b"bytes"}
    assert await child.call(("pid", None)) == await child.call(("pid", None))


async def test_what_a_library_prints_does_not_break_the_protocol(child):
    """Standard output of the child is not the channel."""
    assert await child.call(("print", None)) == "printed"
    assert await child.call(("echo", 1)) == 1


async def test_progress_arrives_in_order(child):
    """`report` reaches the parent while the function runs."""
    seen = []
    assert await child.call(("progress", 5), seen.append) == "reported"
    assert seen == [0, 1, 2, 3, 4]


async def test_declared_errors_come_through_and_the_child_lives_on(child):
    """A `VoxelmillError` is an answer, not an accident."""
    pid = await child.call(("pid", None))
    with pytest.raises(UnsupportedSeriesError) as caught:
        await child.call(("unsupported", "slices 4 and 5 are missing"))
    assert (caught.value.code, str(caught.value)) == ("missing-slices", "slices 4 and 5 are missing")
    with pytest.raises(NotApplicableError, match="for CT"):
        await child.call(("not-applicable", "the model is for CT"))
    assert await child.call(("pid", None)) == pid


@pytest.mark.parametrize(
    ("task", "error_class", "words"),
    [
        (("exit", 3), "child-exited", "exit code 3"),
        (("os-exit", 0), "child-exited", "exit code 0"),
        (("segfault", None), "child-died", "SIGSEGV"),
        (("kill", signal.SIGKILL), "child-died", "out of memory"),
        (("allocate", 4 << 30), "child-out-of-memory", "1024 MiB"),
        (("thread-without-memory", None), "child-out-of-memory", "1024 MiB"),
        (("nonsense", None), "unexpected", "KeyError in "),
    ],
)
async def test_an_accident_is_one_failed_call_and_the_next_call_works(child, task, error_class, words):
    """Exit, crash, out of memory, an unforeseen error: a reason each, and a fresh child afterwards."""
    with pytest.raises(ChildFailedError, match=words) as caught:
        await child.call(task)
    assert caught.value.error_class == error_class
    assert await child.call(("echo", "again")) == "again"


async def test_a_full_disk_is_a_wait_and_the_child_lives_on(child, capfd):
    """The device that is always full: one line, no trace, and no accident of the child."""
    pid = await child.call(("pid", None))
    with pytest.raises(DiskFullError, match="No space left on device"):
        await child.call(("fill", "/dev/full"))
    assert await child.call(("pid", None)) == pid
    assert "Traceback" not in capfd.readouterr().err


async def test_a_hang_is_ended():
    """A call that takes too long is killed, and says so."""
    child = Child(TARGET, Limits(memory_bytes=1 << 30, seconds=0.5))
    await child.start()
    try:
        with pytest.raises(ChildFailedError, match=r"longer than 0\.5 s") as caught:
            await child.call(("sleep", 60))
        assert caught.value.error_class == "child-timeout"
    finally:
        await child.close()


async def begun(child, task):
    """Start a call and return its task when it has reported for the first time."""
    reported = asyncio.Event()
    call = asyncio.create_task(child.call(task, lambda _: reported.set()))
    async with asyncio.timeout(20):
        await reported.wait()
    return call


async def cancelled(call):
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelling_a_call_stops_it_between_two_parts_and_the_child_stays_warm(child):
    """What was loaded is kept: the next call runs in the same process, and is not touched by the request to stop."""
    pid = await child.call(("pid", None))
    await cancelled(await begun(child, ("parts", 6000)))
    assert await child.call(("pid", None)) == pid
    assert await child.call(("parts", 3)) == "whole"


async def test_a_call_that_is_cancelled_as_it_begins_leaves_the_child_warm():
    """The request to stop may be quicker than the call itself, or just behind it."""
    child = Child(TARGET, Limits(memory_bytes=1 << 30, seconds=60, stop_seconds=30))
    try:
        pid = await child.call(("pid", None))
        call = asyncio.create_task(child.call(("parts", 6000)))
        await asyncio.sleep(0)
        await cancelled(call)
        assert await child.call(("pid", None)) == pid
    finally:
        await child.close()


async def test_cancelling_a_call_that_does_not_stop_ends_the_child(child):
    """A drain that runs out of patience leaves no process computing."""
    pid = await child.call(("pid", None))
    await cancelled(await begun(child, ("deaf", None)))
    assert not psutil.pid_exists(pid)
    assert await child.call(("echo", "again")) == "again"


async def test_without_time_to_stop_the_child_is_ended_at_once():
    """A machine that is taken away has no time for a child that may be in the middle of a part."""
    child = Child(TARGET, Limits(memory_bytes=1 << 30, seconds=20, stop_seconds=0))
    try:
        pid = await child.call(("pid", None))
        await cancelled(await begun(child, ("parts", 6000)))
        assert not psutil.pid_exists(pid)
    finally:
        await child.close()


async def test_being_cancelled_twice_is_not_patient(child):
    """The second cancellation does not wait for the first one's time to stop."""
    pid = await child.call(("pid", None))
    call = await begun(child, ("deaf", None))
    call.cancel()
    await asyncio.sleep(0)
    await cancelled(call)
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what memory a process uses")
async def test_a_watched_child_may_map_more_than_it_uses():
    """Address space is not bounded, memory in use is: the child is ended, the reason says why, the next call works."""
    child = Child(TARGET, Limits(memory_bytes=200 << 20, seconds=20, watched=True))
    try:
        assert await child.call(("map", 4 << 30)) == 4 << 30
        with pytest.raises(ChildFailedError, match="more than its 200 MiB") as caught:
            await child.call(("hold", 400 << 20))
        assert caught.value.error_class == "child-out-of-memory"
        assert await child.call(("echo", "again")) == "again"
    finally:
        await child.close()


async def test_the_event_loop_goes_on_while_a_child_hangs(child):
    """The heartbeat of a consumer is a task like this one: a child that is stopped in its tracks does not hold it."""
    pid = await child.call(("pid", None))
    call = await begun(child, ("deaf", None))
    os.kill(pid, signal.SIGSTOP)
    beats = 0
    async with asyncio.timeout(10):
        while beats < 50:
            await asyncio.sleep(0.002)
            beats += 1
    await cancelled(call)
    assert not psutil.pid_exists(pid)


async def test_children_have_variables_of_their_own():
    """One device each."""
    async with ChildPool(TARGET, LIMITS, 2, environments=[{"DEVICE": "0"}, {"DEVICE": "1"}]) as pool:
        async with pool.child() as one, pool.child() as other:
            seen = [await child.call(("environment", "DEVICE")) for child in (one, other)]
        assert sorted(seen) == ["0", "1"]


async def test_a_pool_runs_as_many_calls_at_a_time_as_it_has_children():
    """Two children, three calls: all answered, by two processes."""
    async with ChildPool(TARGET, LIMITS, 2) as pool:
        pids = await asyncio.gather(*(pool.call(("pid", None)) for _ in range(3)))
        assert len(set(pids)) <= 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("warm", [False, True])
async def test_a_pool_starts_a_child_when_it_is_asked_to(warm):
    """Without work there is no child, unless one shall wait for the first work."""
    before = {process.pid for process in psutil.Process().children()}
    async with ChildPool(TARGET, LIMITS, 2, warm=warm):
        started = {process.pid for process in psutil.Process().children()} - before
        assert len(started) == warm
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    """Kill -9 of the parent in the middle of a call leaves no orphan behind."""
    program = (
        "import asyncio, sys\n"
        "from voxelmill_shared.child import Child, Limits\n"
        "async def main():\n"
        "    child = Child('child_targets:act', Limits(1 << 30, 60))\n"
        "    print(await child.call(('pid', None)), flush=True)\n"
        "    await child.call(('sleep', 60))\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        deadline = time.monotonic() + 10
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not psutil.pid_exists(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
