"""Tools in child processes: whatever becomes of them, the benchmark goes on and says what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peer_process import OURS, PeerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCRIPT = """
import json, os, sys, time
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "die":
        print("cannot go on", file=sys.stderr, flush=True)
        os.abort()
    if job["do"] == "hang":
        time.sleep(60)
    print("warning: odd", file=sys.stderr, flush=True)
    print(json.dumps({"outcome": "done", "pid": os.getpid()}), flush=True)
"""


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[PeerProcess]:
    script = tmp_path / "tool.py"
    script.write_text(_SCRIPT)
    with PeerProcess(OURS, seconds=1, script=str(script)) as process:
        yield process


def test_one_process_answers_one_job_after_the_other(peer):
    """With what it printed meanwhile, and that alone."""
    first, second = peer.ask({"do": "work"}), peer.ask({"do": "work"})
    assert first == second
    assert first["said"] == "warning: odd\n"


def test_a_death_is_an_answer_and_the_next_job_has_a_new_process(peer):
    """With the last line that it printed."""
    before = peer.ask({"do": "work"})["pid"]
    dead = peer.ask({"do": "die"})
    assert (dead["outcome"], "cannot go on" in dead["reason"], "-6" in dead["reason"]) == ("crash", True, True)
    assert peer.ask({"do": "work"})["pid"] != before


def test_a_hang_is_an_answer(peer):
    """After the time limit."""
    assert peer.ask({"do": "hang"})["reason"] == "no answer within 1 s"
    assert peer.ask({"do": "work"})["outcome"] == "done"
