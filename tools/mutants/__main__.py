"""Make mutants of the test data and put them through ingest and thumbnail: `make mutants ARGS="--seed 7"`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants import kinds
from mutants.bodies import check_bodies
from mutants.runner import MOST_SECONDS, PEAK_MIB, run, wanted
from mutants.seeds import Seeds
from mutants.whole import run_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from mutants.runner import Tally
    from mutants.whole import Outcome

_DATA = Path(__file__).parents[3] / "shared" / "data"


def main() -> None:
    """Run, print the table, and end with 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=5_060, help="how many mutants, of all kinds alike")
    parser.add_argument("--bodies", type=int, default=2_000, help="how many mutated notifications and messages")
    parser.add_argument("--whole", type=int, default=300, help="how many in one inbox through `voxelmill run`")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="the same seed, the same mutants")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--number", type=int, help="with --only: this one alone")
    parser.add_argument("--keep", type=Path, help="a folder for the files that made a fault")
    given = parser.parse_args()
    data = Path(os.environ.get("VOXELMILL_TEST_DATA", _DATA))
    if not (data / "MANIFEST.tsv").exists():
        sys.exit(f"no test data in {data} (set VOXELMILL_TEST_DATA)")
    if not any(given.only in kind for kind in kinds()):
        parser.error(f"no kind of mutants holds {given.only!r}: {', '.join(kinds())}")
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    chosen = list(wanted(given.count, given.only))
    if given.number is not None:
        chosen = [(kind, given.number) for kind in kinds() if given.only in kind]
    print(f"seed {given.seed}: {len(chosen)} mutants", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tallies = asyncio.run(run(Seeds(data), chosen, given.seed, Path(scratch), _tell(len(chosen)), given.keep))
    seconds = time.monotonic() - began
    bodies = check_bodies(data.parent / "events", given.bodies, given.seed) if given.bodies and not given.only else []
    whole = None
    if given.whole and not given.only:
        print("voxelmill run on a folder of mutants with a sound series", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
            whole = run_whole(Seeds(data), given.whole, given.seed, Path(scratch))
    _print_table(tallies)
    for kind, tally in tallies.items():
        for number, fault in tally.faults:
            print(f"  {kind} {number}: {fault}")
    for fault in bodies:
        print(f"  notifications and messages: {fault}")
    for fault in whole.faults if whole is not None else ():
        print(f"  voxelmill run: {fault}")
    document = _document(tallies, bodies, whole, given.seed, given.bodies, seconds)
    print(json.dumps(document))
    sys.exit(0 if all(aim["met"] for aim in document["aims"].values()) else 1)


def _tell(total: int) -> Callable[[int], None]:
    step = max(1, total // 10)

    def tell(done: int) -> None:
        if done % step == 0:
            print(f"  {done} of {total}", file=sys.stderr, flush=True)

    return tell


def _print_table(tallies: dict[str, Tally]) -> None:
    print(
        f"{'kind':<38}{'count':>6}{'accepted':>9}{'warned':>7}{'rejected':>9}{'crashed':>8}{'hung':>5}{'wrong':>6}",
        end="",
    )
    print(f"{'MiB':>6}{'slowest':>8}  rejected for")
    for kind, tally in tallies.items():
        told = tally.outcomes
        print(f"{kind:<38}{tally.count:>6}{told['accepted']:>9}{told['warned']:>7}{told['rejected']:>9}", end="")
        print(f"{tally.crashed:>8}{tally.hung:>5}{tally.wrong:>6}{tally.peak_mib:>6.0f}{tally.slowest:>7.2f}s", end="")
        print("  " + ", ".join(f"{reason} {count}" for reason, count in tally.reasons.most_common(6)))


def _document(
    tallies: dict[str, Tally], bodies: list[str], whole: Outcome | None, seed: int, count: int, seconds: float
) -> dict[str, Any]:
    every = list(tallies.values())
    peak, slowest = max(one.peak_mib for one in every), max(one.slowest for one in every)
    aims = {
        name: {"value": value, "aim": aim, "met": value <= aim}
        for name, value, aim in (
            ("crashed", sum(one.crashed for one in every), 0),
            ("hung", sum(one.hung for one in every), 0),
            ("wrong", sum(one.wrong for one in every), 0),
            ("peak_mib", round(peak), PEAK_MIB),
            ("slowest_seconds", round(slowest, 2), MOST_SECONDS),
            ("bodies_not_refused_properly", len(bodies), 0),
            *([("whole_run_faults", len(whole.faults), 0)] if whole is not None else []),
        )
    }
    reasons: dict[str, int] = {}
    for one in every:
        for reason, times in one.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + times
    figures = {
        "seed": seed,
        "mutants": sum(one.count for one in every),
        "kinds": len(every),
        **{name: sum(one.outcomes[name] for one in every) for name in ("accepted", "warned", "rejected")},
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        "bodies": count,
        "seconds": round(seconds, 1),
        **({"whole_run": {"objects": whole.objects, **whole.counts}} if whole is not None else {}),
    }
    return {"bench": "mutants", "aims": aims, "figures": figures}


if __name__ == "__main__":
    main()
