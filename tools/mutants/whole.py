"""Mutants in one inbox with a sound series, through `voxelmill run`: every service, and a report that names each."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants import kinds, make
from mutants.archives import NAMES
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series

if TYPE_CHECKING:
    from mutants.seeds import Seeds

PLAN = PhantomPlan(seed=7, rows=112, columns=112, slices=44, pixel_mm=3.4, slice_mm=7.0)
SOUND = "sound chest"
_SECONDS = 1_800


@dataclass(slots=True)
class Outcome:
    """What a run of the command did: its exit code, how many objects it was given, and what must not be."""

    code: int
    objects: int
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def fill(inbox: Path, seeds: Seeds, count: int, seed: int) -> int:
    """Put mutants of every kind and a sound series into a folder, under names of every kind; return how many files."""
    write_series(inbox / SOUND, make_phantom(PLAN))
    names = [name for name in NAMES if "/" not in name and name not in {".", "..", " "} and len(name.encode()) < 200]
    names += ["\udcff\udcfe.dcm", "a\u202eb.dcm"]
    every = kinds()
    for n in range(count):
        mutant = make(seeds, every[n % len(every)], n // len(every), seed)
        name = names[n % len(names)].replace("\0", "\1") if n % 3 == 0 else mutant.name
        place = inbox / f"{n:04d}"
        place.mkdir()
        Path(os.fsdecode(bytes(place) + b"/" + os.fsencode(name))).write_bytes(mutant.data)
    return sum(path.is_file() for path in inbox.rglob("*"))


def run_whole(seeds: Seeds, count: int, seed: int, scratch: Path) -> Outcome:
    """Run the command on such a folder and look at all that it says."""
    inbox = scratch / "inbox"
    files = fill(inbox, seeds, count, seed)
    command = [sys.executable, "-m", "voxelmill_cli", "run", str(inbox), "--output", str(scratch / "out"), "--json"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "VOXELMILL_SCRATCH": str(scratch / "scratch")}
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL, env=environment
    )
    errors = done.stderr.decode(errors="replace")
    outcome = Outcome(done.returncode, files)
    if "Traceback" in errors:
        outcome.faults.append(f"a traceback on standard error: {errors[errors.index('Traceback') :][:3000]}")
    outcome.faults += [f"control characters: {line[:200]!r}" for line in errors.splitlines() if "\x1b" in line]
    if done.returncode != 1:
        outcome.faults.append(f"exit code {done.returncode}: {errors[-500:]}")
    try:
        document = json.loads(done.stdout)
    except ValueError:
        outcome.faults.append("standard output is no JSON document")
        return outcome
    _account(document, inbox, outcome)
    return outcome


def _account(document: dict[str, Any], inbox: Path, outcome: Outcome) -> None:
    """See that each file is in the report: as an input of a series, skipped, or rejected with one line."""
    named = {one["object"].partition("!")[0] for kind in ("skipped", "rejected") for one in document[kind]}
    inputs: set[str] = set()
    contents: set[str] = set()  # the same content under two keys is one instance
    for series in document["series"]:
        receipt = json.loads((Path(series["folder"]) / "receipt.json").read_text())
        inputs |= {one["object"]["key"] for one in receipt["inputs"]}
        contents |= {one["object"]["etag"] for one in receipt["inputs"]}
    known = named | inputs
    for path in sorted(inbox.rglob("*")):
        key = path.relative_to(inbox).as_posix()
        if not path.is_file() or _is_archive(path) or hashlib.md5(path.read_bytes()).hexdigest() in contents:  # noqa: S324 - the local store's ETag
            continue
        if not any(_is(key, one) for one in known):
            outcome.faults.append(f"{key!r} is not in the report")
    for one in (*document["skipped"], *document["rejected"]):
        if not one["detail"] or not one["detail"].isprintable():
            outcome.faults.append(f"{one['object']!r}: no line for people: {one['detail'][:200]!r}")
    for one in document["failed"]:
        if not one["reason"] or not one["reason"].isprintable() or one["error_class"] in {"unexpected", "child-died"}:
            outcome.faults.append(f"{one['subject']!r}: {one['error_class']}: {one['reason'][:200]!r}")
    sound = [one for one in document["series"] if any(SOUND in key for key in _keys(one))]
    if [one["status"] for one in sound] != ["complete"]:
        outcome.faults.append(f"the sound series is {[one['status'] for one in sound]}")
    names = ("series", "skipped", "rejected", "failed", "lost")
    outcome.counts = {name: len(document[name]) for name in names}
    outcome.faults += [f"{uid} is lost" for uid in document["lost"]]


def _keys(series: dict[str, Any]) -> list[str]:
    receipt = json.loads((Path(series["folder"]) / "receipt.json").read_text())
    return [one["object"]["key"] for one in receipt["inputs"]]


def _is(key: str, known: str) -> bool:
    """Whether a name of the report is that of a file, escaped or not."""
    return known == key or known == key.encode("unicode_escape", "surrogateescape").decode() or known.endswith(key)


def _is_archive(path: Path) -> bool:
    """Whether a file may have been taken as an archive: its members are reported, and it only where it is refused."""
    head = path.read_bytes()[:512]
    return head[:4] == b"PK\x03\x04" or head[257:262] == b"ustar" or head[:2] == b"\x1f\x8b"
