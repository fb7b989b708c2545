"""Structured logs: one JSON object a line, with the message that is being handled."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest
import structlog

from voxelmill_shared import logs
from voxelmill_shared.events import Envelope, UploadCompleted

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
