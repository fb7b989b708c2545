"""The parts of `make up`: scale, ports, processes told apart, one clear line for what cannot be, and keeping."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stack import supervisor
from stack.folder import Facts, Folder
from stack.installation import LONGEST_GRACE, SERVICES, Installation, names_of, read_scale
from stack.ports import are_free, free_ports
from stack.postgresql import PostgreSQL
from stack.processes import Process, wait
from stack.program import Program, StackError
from stack.rabbitmq import RabbitMQ
from stack.seaweedfs import SeaweedFS
from stack.supervisor import Supervisor

TOOLS = Path(__file__).parents[3] / "tools"


def stack(*arguments, **options):
    done = subprocess.run(
        [sys.executable, "-m", "stack", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"PYTHONPATH": str(TOOLS)},
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"not so after {seconds} s")


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "stack")
    folder.make()
    return folder


def test_scale_names_how_many_of_each():
    """One of each where nothing is said; commas and spaces part."""
    assert read_scale("") == dict.fromkeys(SERVICES, 1)
    scale = read_scale("thumbnail=2, mesh=0")
    assert names_of(scale) == ["ingest-1", "thumbnail-1", "thumbnail-2", "segment-1", "index-1", "gateway-1"]


@pytest.mark.parametrize("text", ["mash=2", "mesh", "mesh=", "mesh=-1", "mesh=1000", "mesh=²", "=2"])
def test_a_wrong_scale_is_one_clear_line(text, tmp_path):
    """Wrong usage, before anything is made."""
    done = stack("up", "--dir", tmp_path / "stack", "--scale", text)
    assert done.returncode == 2
    assert done.stderr.startswith(f"voxelmill stack: SCALE: {text}: ")
    assert not (tmp_path / "stack").exists()


def test_ports_stay_unless_they_are_taken(folder):
    """A second start has the same ports; of a block of which one is taken, another one is chosen."""
    facts = Facts.read(folder)
    facts.settle_ports(["ingest-1"])
    facts.write(folder)
    again = Facts.read(folder)
    again.settle_ports(["ingest-1"])
    assert again == facts
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", facts.ports["seaweedfs"] + 10_002))  # gRPC of the third of its ports
        taken.listen()
        again.settle_ports(["ingest-1"])
    assert again.ports["seaweedfs"] != facts.ports["seaweedfs"]
    assert {**again.ports, "seaweedfs": 0} == {**facts.ports, "seaweedfs": 0}


def test_a_port_is_free_again_at_once():
    """Connections that have just ended occupy the port of a server that starts again for nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not are_free([port])
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # this side closes first, so the port's end waits for stragglers
            assert client.recv(1) == b""
    assert are_free([port])


def test_another_process_of_the_same_number_is_left_alone():
    """A record that names a number, but another start time, leads to nothing."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as running:
        process = Process.of("sleep", running.pid)
        stranger = Process("sleep", process.pid, process.started - 1)
        assert process.is_alive()
        assert not stranger.is_alive()
        assert stranger.family() == []
        stranger.ask(signal.SIGKILL)
        stranger.kill()
        assert process.is_alive()
        process.kill()
        assert running.wait() == -signal.SIGKILL


def test_a_family_ends_as_a_whole():
    """Children, grandchildren in sessions of their own, and children whose parent has ended."""
    script = "sleep 60 & setsid sh -c 'sleep 60 & sleep 60' & wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as running:
        process = Process.of("sh", running.pid)
        wait_for(lambda: len(process.family()) == 5)
        family = process.family()
        process.kill()
        assert not any(member.is_alive() for member in family)

    with subprocess.Popen(["sh", "-c", "sleep 60 & exit 0"], start_new_session=True) as running:
        process = Process.of("sh", running.pid)
        running.wait()
    (orphan,) = process.family()
    process.kill()
    assert not orphan.is_alive()


def test_waiting_gives_up_in_time():
    """What still runs is told by the answer, not by an error."""
    with subprocess.Popen(["sleep", "60"]) as running:
        assert not wait([running.pid], 0.05)
        running.kill()
        assert wait([running.pid], 20)


def test_one_lock_at_a_time(folder):
    """Whoever comes second gets none, until the first has ended."""
    first = folder.lock()
    assert first is not None
    assert folder.lock() is None
    first.close()
    second = folder.lock()
    assert second is not None
    second.close()


def test_processes_of_before_a_restart_of_the_machine_are_forgotten(folder):
    """Numbers and start times begin anew with the machine."""
    folder.write_started([Process.of("this", os.getpid())])
    assert [process.pid for process in folder.started()] == [os.getpid()]
    document = json.loads(folder.record.read_text())
    folder.record.write_text(json.dumps({**document, "boot": "another"}))
    assert folder.started() == []


@pytest.mark.parametrize("name", ["up", "down"])
def test_a_damaged_file_is_one_clear_line(name, folder):
    """The file, the reason, the next step."""
    damaged = folder.facts if name == "up" else folder.record
    damaged.write_text("{")
    done = stack(name, "--dir", folder.root)
    assert done.returncode == 1
    assert done.stderr == f"voxelmill stack: {damaged}: is not what was written there; remove it and try again\n"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "stack").write_text("")
    done = stack("up", "--dir", tmp_path / "stack")
    assert done.returncode == 1
    assert done.stderr == (
        f"voxelmill stack: {tmp_path}/stack: File exists; "
        "make room or give access there, or choose another folder with DIR=…\n"
    )


def test_a_disk_without_room_is_one_clear_line(tmp_path):
    """No file may grow: nothing is started, and the line says where."""
    done = stack(
        *("up", "--dir", tmp_path / "stack"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path}/stack" in done.stderr
    assert "File too large; make room" in done.stderr


def test_ending_what_does_not_run(tmp_path):
    """`down` and `ps` say so, make nothing, and that is no failure."""
    for name in ("down", "ps"):
        done = stack(name, "--dir", tmp_path / "stack")
        assert (done.returncode, done.stderr) == (0, "")
        assert "nothing runs" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_whoever_listens_may_go(tmp_path):
    """`make ps | head -1` ends as every command does whose reader has gone: without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "stack", "ps", "--dir", str(tmp_path / "stack")]
        environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False, env=environment)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("grace", "patience"), [("", 40.0), ("5", 40.0), ("60", 75.0), ("inf", LONGEST_GRACE + 15.0), ("soon", 40.0)]
)
def test_services_may_take_as_long_as_their_grace_period(folder, monkeypatch, grace, patience):
    """And a little more. One that is no number is left to the services, which refuse it in one clear line."""
    monkeypatch.setenv("VOXELMILL_GRACE_SECONDS", grace)
    facts = Facts()
    facts.settle_ports(["mesh-1"])
    servers = (
        RabbitMQ(folder.data / "rabbitmq", 1),
        SeaweedFS(folder.data / "seaweedfs", 2, "voxelmill", "secret"),
        PostgreSQL(folder.data / "postgresql", 3, Path("/usr/bin")),
    )
    for server in servers:
        server.folder.mkdir()
        (server.folder / "password").write_text("secret")
    (mesh,) = Installation(folder, facts, *servers, "weed").services({"mesh": 1})
    assert mesh.patience == patience


def program(name, script, folder):
    """A program that is ready when it has made a file of its name."""
    return Program(
        name=name,
        command=("sh", "-c", script),
        environment={"PATH": os.environ["PATH"]},
        folder=folder.root,
        ports=(free_ports(1),),
        is_ready=(folder.root / name).exists,
        patience=10.0,
    )


@pytest.fixture
def keeper(folder, monkeypatch):
    """A supervisor whose pauses are short."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.05)
    return Supervisor(folder, read_scale(""), lambda _: None)


async def test_what_ends_is_started_again(keeper, folder, capfd):
    """It has a new process, the log says how the old one ended, and the pauses grow up to a bound."""
    (folder.root / "mesh-1").touch()
    await keeper._start_all([program("mesh-1", "exec sleep 60", folder)])
    child = keeper._children["mesh-1"]
    for _ in range(4):
        before = child.process
        before.ask(signal.SIGKILL)
        async with asyncio.timeout(20):
            while child.process in {before, None}:  # noqa: ASYNC110 - it is another process's end that is waited for
                await asyncio.sleep(0.01)
    last = child.process
    assert folder.started() == [last]
    await keeper._stop()
    assert last.family() == []
    assert folder.started() == []
    said = capfd.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in said] == [
        f"mesh-1: was ended by SIGKILL; starting it again in {pause} s" for pause in (0.01, 0.02, 0.04, 0.05)
    ]


async def test_what_never_gets_ready_ends_the_start(keeper, folder):
    """A service is tried a few times; the line has its last words and its log."""
    with pytest.raises(StackError) as failed:
        await keeper._start_all([program("mesh-1", "echo no such queue >&2; echo >&2; exit 3", folder)])
    assert str(failed.value) == (
        f"mesh-1 did not start: ended with exit code 3, saying: no such queue; see {folder.logs}/mesh-1.log"
    )
    assert failed.value.code == 3
    assert (folder.logs / "mesh-1.log").read_text().count("no such queue") == supervisor.TRIES


async def test_a_wrong_setting_is_not_tried_again(keeper, folder):
    """Exit code 2 of a service is that of the start."""
    with pytest.raises(StackError) as failed:
        await keeper._start_all([program("mesh-1", "echo wrong; exit 2", folder)])
    assert failed.value.code == 2
    assert (folder.logs / "mesh-1.log").read_text() == "wrong\n"


async def test_services_end_before_the_servers_that_they_need(keeper, folder):
    """The database still runs while a service drains."""
    ended = folder.root / "ended"
    slow = "trap 'sleep 0.3; echo mesh-1 >> ended; exit 0' TERM; touch mesh-1; while :; do sleep 0.05; done"
    quick = "trap 'echo postgresql >> ended; exit 0' TERM; touch postgresql; while :; do sleep 0.05; done"
    await keeper._start_all([program("postgresql", quick, folder), program("mesh-1", slow, folder)])
    await keeper._stop()
    assert ended.read_text().split() == ["mesh-1", "postgresql"]
    assert {name: child.code for name, child in keeper._children.items()} == {"mesh-1": 0, "postgresql": 0}
