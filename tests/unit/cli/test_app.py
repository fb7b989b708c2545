"""How the command answers what goes wrong, without an engine."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from e2e.command import VOXELMILL, voxelmill
from voxelmill_cli.app import parse_formats
from voxelmill_cli.errors import explain
from voxelmill_cli.interrupts import Interrupted
from voxelmill_shared.plan import MeshFormat


def test_formats_are_read_once_each_and_at_least_one():
    """Nothing between the commas is nothing to write."""
    assert parse_formats(" STL,ply,stl,") == (MeshFormat.STL, MeshFormat.PLY)
    for text in ("", " , "):
        with pytest.raises(typer.BadParameter, match="names no format; use stl"):
            parse_formats(text)


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "make room there or choose another folder"),
        (errno.EACCES, "choose a folder that this user can read and write"),
        (errno.EIO, "see that it can be used and start again"),
    ],
)
def test_an_error_of_the_system_names_file_reason_and_next_step(number, step):
    """With the file that the system names, else the one that is given."""
    reason = os.strerror(number)
    assert explain(OSError(number, reason, "a/b")) == f"a/b: {reason}; {step}"
    assert explain(OSError(number, reason), "c") == f"c: {reason}; {step}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "--data", "nowhere", "--json"], "nowhere: no catalog there"),
        (["run", "nowhere", "--output", "out", "--format", "", "--json"], "names no format"),
        (["run", "nowhere", "--output", "out", "--organ", "spleen", "--json"], "spleen"),
    ],
)
def test_a_failure_is_one_json_document_too(tmp_path, arguments, said):
    """Standard output is a document whatever happens, and the line stands on standard error."""
    ended = voxelmill(*arguments, cwd=tmp_path)
    assert ended.code == ended.document["exit_code"] == 2
    assert said in ended.document["error"]
    assert said in ended.err


FULL = "voxelmill: standard output: No space left on device; make room there or choose another folder\n"


@pytest.mark.parametrize("arguments", [["--version"], ["doctor"], ["doctor", "--json"]])
def test_a_full_disk_under_standard_output_is_one_line(arguments):
    """/dev/full takes nothing."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = voxelmill(*arguments, stdout=full.fileno())
    assert ended.code == 1
    assert ended.err == FULL


def test_an_interpreter_that_ends_over_a_full_disk_adds_nothing():
    """It tries once more to write what is left, and would say so."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run([*VOXELMILL, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == FULL


def test_a_reader_that_has_gone_ends_it_quietly():
    """`voxelmill doctor | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = voxelmill("doctor", stdout=writing)
    os.close(writing)
    assert ended.code == 1
    assert ended.err == ""


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    """Lines with escapes, and documents that still are JSON."""
    line = voxelmill("status", "--data", "é", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert "\\xe9: no catalog" in line.err
    ended = voxelmill("doctor", "--data", tmp_path / "é", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(ended.out)


def test_doctor_looks_at_every_setting():
    """Those of single services too, although no server is named."""
    ended = voxelmill("doctor", "--json", VOXELMILL_GRACE_SECONDS="abc", VOXELMILL_QUIET_SECONDS="x")
    assert ended.code == 3
    wrong = [finding["detail"].split(":")[0] for finding in ended.document if finding["name"] == "settings"]
    assert sorted(wrong) == ["VOXELMILL_GRACE_SECONDS", "VOXELMILL_QUIET_SECONDS"]


def test_doctor_makes_nothing_that_it_looks_for(tmp_path):
    """With one address named, the others are the defaults: files and folders that are not there stay so."""
    ended = voxelmill("doctor", "--json", cwd=tmp_path, VOXELMILL_RESULTS_URL=str(tmp_path / "results"))
    assert ended.code == 0, ended.err
    assert {"broker", "inbox", "work", "results", "database"} <= {finding["name"] for finding in ended.document}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("VOXELMILL_GRACE_SECONDS", "abc", 2),
        ("VOXELMILL_GRACE_SECONDS", "inf", 2),
        ("VOXELMILL_LADDER", "x", 2),
        ("VOXELMILL_BROKER_URL", "foo://x", 2),
        ("VOXELMILL_RESULTS_URL", "foo://x", 2),
        ("VOXELMILL_DATABASE_URL", "foo://x", 2),
        ("VOXELMILL_INBOX_URL", "/nowhere/at/all", 3),
        ("VOXELMILL_INBOX_URL", "s3://x", 3),
        ("VOXELMILL_RESULTS_URL", "s3://x", 3),
    ],
)
def test_a_wrong_environment_is_one_line_that_names_the_variable(tmp_path, variable, value, code):
    """`up` says at its start what is written wrong (2) and what does not answer (3), and makes nothing of it."""
    nobody = {name: str(tmp_path / "none") for name in ("HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    ended = voxelmill(
        "up", "--data", tmp_path / "data", "--port", "0",
        seconds=60, AWS_EC2_METADATA_DISABLED="true", **nobody, **{variable: value},
    )  # fmt: skip
    assert ended.code == code, ended.err
    assert ended.err.startswith(f"voxelmill: {variable}: ")
    assert ended.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [("VOXELMILL_GRACE_SECONDS", "abc"), ("VOXELMILL_LADDER", "x"), ("VOXELMILL_PORT", "99999")],
)
def test_a_service_and_doctor_name_the_same_variable(variable, value):
    """A service as a process of its own says it in the same words."""
    ended = subprocess.run(
        [sys.executable, "-m", "voxelmill_index"],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"voxelmill-index: {variable}: ")
    assert ended.stderr.count("\n") == 1
    (wrong,) = [entry for entry in voxelmill("doctor", "--json", **{variable: value}).document if not entry["good"]]
    assert wrong["detail"] in ended.stderr


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("run", signal.SIGINT, 130), ("demo", signal.SIGTERM, 143), ("up", signal.SIGTERM, 0)],
)
def test_a_signal_during_the_imports_is_one_line(command, number, code):
    """The signal comes before anything of the command has been imported."""
    program = (
        "import os, sys\n"
        "from voxelmill_cli.__main__ import main\n"
        "class Sender:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'voxelmill_cli.app':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Sender())\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, command, "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("\n") == 1
    if code:
        assert json.loads(ended.stdout) == {
            "error": "interrupted; start it again and it goes on where it was",
            "exit_code": code,
        }
    assert "start it again and it goes on where it was" in ended.stderr


def test_an_interruption_is_no_failure_that_someone_might_catch():
    """`except Exception` lets it pass; its exit code is a shell's."""
    assert not isinstance(Interrupted(signal.SIGTERM), Exception)
    assert Interrupted(signal.SIGTERM).exit_code == 143
