"""`voxelmill dlq`: what people see of dead letters, and what they can do with them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from e2e.command import VOXELMILL
from voxelmill_cli.app import app
from voxelmill_cli.dlq import read_since, short_handles
from voxelmill_cli.errors import CommandError
from voxelmill_shared.dead_letters import read_letter
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.transport.base import (
    HEADER_ERROR_CLASS,
    HEADER_HISTORY,
    HEADER_REASON,
    HEADER_TRACE_ID,
    DeadLetter,
    Message,
)
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INDEX, INGEST, TOPOLOGY

CONTENT = b"an object"
TRACE = "0af7651916cd43dd8448eb211c80319c"
HISTORY = json.dumps([{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error_class": "transient", "reason": "no luck"}])


def uploaded(number):
    etag = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    reference = ObjectRef(bucket="inbox", key=f"a{number}.dcm", etag=etag, size=len(CONTENT))
    envelope = Envelope.wrap(ObjectUploaded(object=reference, found_by="command"), "test")
    return envelope.model_copy(update={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}).encode()


async def bury(data, *bodies):
    """Bury messages with these bodies in the queue of ingest."""
    transport = EmbeddedTransport(data / "broker.db")
    await transport.declare(TOPOLOGY)
    await transport.publish([Message(body, "object.uploaded.v1", str(n)) for n, body in enumerate(bodies)])
    left, done = len(bodies), asyncio.Event()

    async def callback(delivery):
        nonlocal left
        is_event = delivery.message.body.startswith(b"{")
        await delivery.dead_letter(
            {
                HEADER_ERROR_CLASS: "object-unreadable" if is_event else "undecodable",
                HEADER_REASON: "no \x1b[31muse",
                HEADER_HISTORY: HISTORY,
                HEADER_TRACE_ID: TRACE if is_event else "",
            }
        )
        left -= 1
        if not left:
            done.set()

    consumer = await transport.consume(INGEST, callback, prefetch=1)
    await asyncio.wait_for(done.wait(), 20)
    await consumer.cancel()
    await transport.close()


async def counts(data):
    """How many wait in ingest's queue, are dead there, and were told to index."""
    transport = EmbeddedTransport(data / "broker.db")
    found = {count.queue: count for count in await transport.counts()}
    await transport.close()
    return found[INGEST.name].ready, found[INGEST.name].dead, found[INDEX.name].ready


@pytest.fixture
def data(tmp_path):
    """An installation with three dead letters: two of events, one that is none."""
    asyncio.run(bury(tmp_path, uploaded(1), b"\x1b[2J\xff<script>", uploaded(2)))
    return tmp_path


def dlq(data, *arguments):
    ended = CliRunner().invoke(app, ["dlq", *map(str, arguments), "--data", str(data)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    assert "\x1b" not in ended.output
    return ended


def test_list_counts_and_names(data):
    """Queue, count, oldest and classes; then each letter with its handle; as a document too."""
    out = dlq(data, "list").output
    assert "ingest.object-uploaded" in out
    assert out.index("2 object-unreadable") < out.index("1 undecodable") < out.index("inbox/a1.dcm")
    assert "inbox/a1.dcm: object-unreadable: no \\x1b[31muse" in out
    document = json.loads(dlq(data, "list", "--json").stdout)
    (queue,) = document["queues"]
    assert (queue["queue"], queue["count"]) == ("ingest.object-uploaded", 3)
    assert queue["by_error_class"] == {"object-unreadable": 2, "undecodable": 1}
    assert [letter["object"] for letter in document["letters"]] == ["inbox/a1.dcm", None, "inbox/a2.dcm"]
    (one,) = json.loads(dlq(data, "list", "--error", "undecodable", "--since", "1h", "--json").stdout)["letters"]
    assert one["message_type"] == ""
    assert "1 more; --limit" in dlq(data, "list", "--limit", "2").output
    assert dlq(data, "list", "--service", "mesh").output == "no dead letters\n"
    assert asyncio.run(counts(data)) == (0, 3, 0)


def test_show_tells_all(data):
    """Reason, attempts, the event, the object as it stands now, and the lines of its trace in a log."""
    (data / "inbox").mkdir()
    (data / "inbox" / "a1.dcm").write_bytes(CONTENT)
    (data / "inbox" / "a2.dcm").write_bytes(b"another")
    lines = [
        {"event": "late", "trace_id": TRACE, "timestamp": "2026-01-01T00:00:02Z"},
        {"event": "of another", "trace_id": "0" * 32, "subject": TRACE},
        {"event": "early", "trace_id": TRACE, "timestamp": "2026-01-01T00:00:01Z"},
    ]
    (data / "logs").mkdir()
    (data / "logs" / "ingest-1.log").write_text(
        "no JSON " + TRACE + "\n" + "".join(json.dumps(x) + "\n" for x in lines)
    )
    found = json.loads(dlq(data, "show", "1", "--json").stdout)
    assert found["event"]["data"]["object"]["key"] == "a1.dcm"
    assert found["history"] == json.loads(HISTORY)
    (standing,) = found["objects"]
    assert (standing["address"], standing["exists"], standing["size"], standing["same"]) == (
        "inbox/a1.dcm", True, len(CONTENT), True,
    )  # fmt: skip
    assert [line["event"] for line in found["log"]["lines"]] == ["early", "late"]
    out = dlq(data, "show", "3").output
    assert "attempt 1 2026-01-01T00:00:00Z transient: no luck" in out
    assert "inbox/a2.dcm: there, 7 bytes, but with another content than the event means" in out
    assert '"event": "early"' in out
    (data / "inbox" / "a2.dcm").unlink()
    assert "inbox/a2.dcm: is not there any more" in dlq(data, "show", "3").output


def test_show_of_what_is_no_event(data):
    """Its size and its first bytes, none of which a terminal takes for a command; no trace, so no log."""
    out = dlq(data, "show", "2").output
    assert "13 bytes that are no event; it begins: \\x1b[2J\\xff<script>" in out
    assert "names no trace" in out


def test_show_without_a_log(data, monkeypatch):
    """It says so plainly; a log that was named and is not there is a mistake."""
    monkeypatch.chdir(data)
    assert "no file known" in dlq(data, "show", "1").output
    assert dlq(data, "show", "1", "--log", data / "none").exit_code == 2
    (data / "empty.log").touch()
    assert "no line of this trace" in dlq(data, "show", "1", "--log", data / "empty.log").output


def test_a_handle_that_names_nothing(data):
    """One line, and exit code 1."""
    ended = dlq(data, "show", "99")
    assert ended.exit_code == 1
    assert ended.stderr == "voxelmill: 99: no dead letter has that handle; `voxelmill dlq list` names them\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay",), "say which: HANDLE"),
        (("drop",), "say which: HANDLE"),
        (("replay", "1", "--all"), "exclude each other"),
        (("replay", "--service", "ingest", "--all"), "exclude each other"),
        (("replay", "--service", "nobody"), "no service has that name; use index, ingest, mesh, segment, thumbnail"),
        (("list", "--since", "yesterday"), "write an age"),
        (("drop", "--all"), "3 dead letters would be given up for good, and nobody can be asked; say --yes if so"),
    ],
)
def test_a_wrong_usage_changes_nothing(data, arguments, said):
    """One line that says how, and exit code 2."""
    ended = dlq(data, *arguments)
    assert ended.exit_code == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert asyncio.run(counts(data)) == (0, 3, 0)


def test_a_folder_without_an_installation(tmp_path):
    """Nothing is made there."""
    assert "no installation there" in dlq(tmp_path, "list").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_a_dry_run_changes_nothing(data, verb):
    """It says which letters are meant."""
    out = dlq(data, verb, "--error", "object-unreadable", "--dry-run").output
    assert "inbox/a1.dcm" in out
    assert "2 dead letters would be" in out
    assert len(json.loads(dlq(data, verb, "--all", "--dry-run", "--json").stdout)["letters"]) == 3
    assert asyncio.run(counts(data)) == (0, 3, 0)


def test_replay(data):
    """By handle, by filter, and all: back on the queue, and index is told of each."""
    assert dlq(data, "replay", "2").output == "1 of 1 dead letter replayed\n"
    assert asyncio.run(counts(data)) == (1, 2, 1)
    document = json.loads(dlq(data, "replay", "--error", "object-unreadable", "--rate", "0", "--json").stdout)
    assert (document["replayed"], document["gone"]) == (2, 0)
    assert asyncio.run(counts(data)) == (3, 0, 3)
    assert dlq(data, "replay", "--all").output == "0 of 0 dead letters replayed\n"


def test_drop(data):
    """With --yes nobody is asked."""
    assert dlq(data, "drop", "1", "3", "--yes").output == "2 of 2 dead letters dropped\n"
    assert asyncio.run(counts(data)) == (0, 1, 2)


def test_drop_asks_on_a_terminal(data):
    """It goes on after a yes alone."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*VOXELMILL, "dlq", "drop", "--all", "--data", str(data)], stdin=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    os.write(ours, b"n\n")
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert b"Give up 3 dead letters for good?" in out
    assert process.returncode == 1
    assert asyncio.run(counts(data)) == (0, 3, 0)


def test_an_interruption_says_how_far_it_came(tmp_path):
    """Ctrl-C in the middle of a slow replay: so many are back, the others are where they were."""
    asyncio.run(bury(tmp_path, *(uploaded(number) for number in range(40))))
    process = subprocess.Popen(
        [*VOXELMILL, "dlq", "replay", "--all", "--rate", "5", "--data", str(tmp_path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while asyncio.run(counts(tmp_path))[0] < 2:
        assert datetime.now(UTC) < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    ready, dead, told = asyncio.run(counts(tmp_path))
    assert (ready + dead, told) == (40, ready)
    assert process.returncode == 130
    line = f"interrupted: {ready} of 40 dead letters were replayed, the others are where they were"
    assert line in errors
    assert line in json.loads(out)["error"]


def test_times_are_read():
    """An age counts back from now; a time without a zone is this machine's."""
    assert abs(read_since("90m") - (datetime.now(UTC) - timedelta(minutes=90))) < timedelta(minutes=1)
    assert read_since("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert read_since("2026-01-31") == datetime(2026, 1, 31).astimezone(UTC)
    for text in ("", "soon", "99999999999999999d", "2026-13-01", "-1h"):
        with pytest.raises(CommandError):
            read_since(text)


def test_handles_are_shortened_as_far_as_they_differ():
    """At least eight characters."""
    letters = [
        read_letter(DeadLetter(handle, INGEST.name, Message(b"", "k", "m"), None))
        for handle in ("a" * 32, "a" * 10 + "b" * 22, "c" * 32, "7")
    ]
    assert list(short_handles(letters).values()) == ["a" * 11, "a" * 10 + "b", "c" * 11, "7"]
