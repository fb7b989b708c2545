"""Structured logs: one JSON object a line, with the message that is being handled."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aiormq
import pytest
import structlog

from voxelmill_shared import logs
from voxelmill_shared.events import Envelope, UploadCompleted
from voxelmill_shared.transport import rabbit_log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Give what is written to standard error after `logs.configure`; the configuration is undone."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before = structlog.get_config()
    logs.configure("INFO")
    yield stream
    structlog.configure(**before)


def test_a_line_is_one_json_object(written: io.StringIO) -> None:
    """With level and time; what JSON does not know is written as Python shows it, and levels below are left out."""
    log = structlog.get_logger("voxelmill")
    log.debug("unheard")
    log.info("heard", number=1, strange={1, 2} - {2}, text="Größe\n")
    (line,) = written.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["number"]) == ("heard", "info", 1)
    assert (entry["strange"], entry["text"]) == ("{1}", "Größe\n")
    assert entry["timestamp"].endswith("Z")


def test_a_line_tells_of_the_message_in_hand(written: io.StringIO) -> None:
    """Service, type, trace, subject and job, unless the line says otherwise; nothing of it outside of a message."""
    envelope = Envelope.wrap(UploadCompleted(upload_id="u", objects=1), "test")
    log = structlog.get_logger("voxelmill")
    token = logs.handling.set(("mesh", envelope))
    log.warning("inside", subject="its own")
    logs.handling.reset(token)
    log.warning("outside")
    inside, outside = map(json.loads, written.getvalue().splitlines())
    assert (inside["service"], inside["event_type"], inside["subject"]) == ("mesh", "upload.completed.v1", "its own")
    assert inside["trace_id"] == envelope.trace_id
    assert "service" not in outside


def test_an_unknown_level_is_refused() -> None:
    """The reason says which levels there are."""
    with pytest.raises(ValueError, match="use DEBUG, INFO"):
        logs.configure("LOUD")


def test_what_a_library_logs_is_a_line_too(tmp_path: Path) -> None:
    """One JSON object each, with the library's name: errors with their traces, and warnings by their place; what is told, or cancelled, is not."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, logging, warnings\n"
        "from voxelmill_shared import logs\n"
        "from voxelmill_shared.transport.rabbit_log import leave_out_what_is_told\n"
        "logs.configure('INFO')\n"
        "leave_out_what_is_told()\n"
        "client = logging.getLogger('aiormq.connection')\n"
        "client.error('Unexpected connection close from remote \"%s\"', 'amqp://host')\n"
        "client.warning('Connection %r was blocked by: %r', 'c', 'low on\\nmemory')\n"
        "try:\n    1 / 0\n"
        "except ZeroDivisionError:\n    logging.getLogger('asyncio').exception('unforeseen')\n"
        "try:\n    raise asyncio.CancelledError\n"
        "except asyncio.CancelledError:\n    logging.getLogger('sqlalchemy.pool').exception('at the end')\n"
        "logging.getLogger('quiet').info('unheard')\n"
        "warnings.warn('strange', RuntimeWarning)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, timeout=60)
    blocked, broken, warned = map(json.loads, done.stderr.splitlines())
    assert (blocked["event"], blocked["level"], blocked["library"]) == ("library says", "warning", "aiormq.connection")
    assert blocked["reason"] == r"Connection 'c' was blocked by: 'low on\nmemory'"
    assert (broken["library"], broken["level"], broken["reason"]) == ("asyncio", "error", "unforeseen")
    assert "ZeroDivisionError" in broken["exception"]
    assert warned["library"] == "py.warnings"
    assert warned["reason"] == f"{program}:18: RuntimeWarning; its text is left out: it may quote a file"


@pytest.mark.parametrize("name", sorted(rabbit_log._TOLD))
def test_the_client_library_still_says_what_is_left_out(name: str) -> None:
    """The beginnings of its lines stand in its source: one that changed would be heard beside ours."""
    module = aiormq.abc if name.endswith("marshall") else sys.modules[name]
    source = Path(str(module.__file__)).read_text()
    written = re.sub(r'"\s*\n\s*"', "", source).replace('\\"', '"')
    assert [line for line in rabbit_log._TOLD[name] if f'"{line}' not in written] == []
