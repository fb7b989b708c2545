"""A small corpus of mutants of real files, of every kind, made anew each time: none of them does what it must not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mutants import kinds, make
from mutants.bodies import check_bodies
from mutants.mutant import Mutant
from mutants.runner import PEAK_MIB, run, wanted
from mutants.seeds import Seeds
from unit.ingest.hostile_dicom import file_with

if TYPE_CHECKING:
    from pathlib import Path

EACH = 3
"""Of each kind; `make mutants` makes more than a hundred."""
BOMB_MIB = 150


@pytest.mark.data
def test_mutants_of_every_kind_are_taken_or_refused_in_one_line(data: Path, tmp_path: Path, seed: int) -> None:
    """No crash, no hang, no reason of several lines, no volume in a wrong place, and a bound on memory."""
    chosen = list(wanted(EACH * len(kinds())))
    tallies = asyncio.run(run(Seeds(data, BOMB_MIB), chosen, seed, tmp_path))
    faults = [f"{kind} {number}: {fault}" for kind, one in tallies.items() for number, fault in one.faults]
    assert not faults, f"seed {seed}: {faults}"
    assert sum(one.count for one in tallies.values()) == len(chosen)
    assert max(one.peak_mib for one in tallies.values()) <= PEAK_MIB
    assert not list(tmp_path.iterdir())


@pytest.mark.data
def test_a_mutant_is_the_same_for_the_same_seed(data: Path) -> None:
    seeds = Seeds(data)
    for kind in kinds():
        assert make(seeds, kind, 1, 5) == make(seeds, kind, 1, 5), kind


@pytest.mark.data
def test_mutated_notifications_and_messages_are_read_or_refused_in_one_line(data: Path, seed: int) -> None:
    assert check_bodies(data.parent / "events", 300, seed) == []


@pytest.mark.parametrize("fault", ["crash", "exit", "lines"])
def test_the_runner_sees_what_must_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A child that raises, one that ends, and a reason of two lines are faults, and the next mutant is looked at."""
    (tmp_path / "bad.py").write_text(TARGETS[fault])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("mutants.runner.TARGET", "bad:probe")
    sound = file_with(tmp_path / "sound.dcm").read_bytes()
    monkeypatch.setattr("mutants.runner.make", lambda *_: Mutant(sound))
    (tmp_path / "scratch").mkdir()
    (tally,) = asyncio.run(run(Seeds(tmp_path), [(kinds()[0], n) for n in range(2)], 1, tmp_path / "scratch")).values()
    assert tally.count == 2
    assert [number for number, _ in tally.faults] == [0, 1]
    assert tally.crashed == (0 if fault == "lines" else 2)
    assert tally.wrong == (2 if fault == "lines" else 0)


TARGETS = {
    "crash": "def probe(task, report):\n    raise KeyError('x')\n",
    "exit": "import os\n\n\ndef probe(task, report):\n    os._exit(3)\n",
    "lines": (
        "from mutants.verdict import Verdict\n\n\n"
        "def probe(task, report):\n"
        "    verdict = Verdict()\n"
        "    verdict.reject('x', 'one\\nother')\n"
        "    return verdict\n"
    ),
}
