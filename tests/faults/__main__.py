"""Apply every fault some times, and write what came of it into a table. Run by `make faults`.

usage: make faults ARGS="[--fault NAME …] [--runs N] [--seed S] [--outage SECONDS] [--again]"

Each fault's figures are kept as soon as its runs are done, in a file beside the table, so that a command that was
broken off goes on with the fault where it was (`--again` begins anew). A single fault repeats itself: the same seed
draws the same moment.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from faults.catalogue import FAULTS
from faults.harness import run_once
from faults.installation import Installation, MissingError
from faults.table import Row, Table
from report import Aim, end, table

LONG = ("replay-1000",)
"""Minutes a run, and no more than another with more objects: only when asked for by name."""
KEPT = Path(".servers") / "faults.json"
"""What is kept of a command that was broken off; git ignores the folder."""


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, default=10, help="of each fault")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further run has the next")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds that something is out of reach")
    parser.add_argument("--again", action="store_true", help="begin anew, not where the last command was broken off")
    parser.add_argument("--page", type=Path, default=Path("docs/faults.md"), help="the page that holds the table")
    return parser.parse_args()


def run_fault(folder: Path, installation: Installation, name: str, arguments: argparse.Namespace) -> Row:
    """Do all runs of one fault; say each in a line."""
    row = Row(name, FAULTS[name].title)
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        ended = run_once(installation, FAULTS[name], seed, outage=arguments.outage)
        print(ended.line(), flush=True)
        row.add(ended)
        if not ended.is_good:
            print(f"  the logs of the processes are in {folder}", flush=True)
    return row


def main() -> int:
    """Run what is asked for; 0 if nothing was lost and nothing came twice, 1 if so, 3 if a server is missing."""
    arguments = read_arguments()
    whole = arguments.fault is None
    names = [name for name in FAULTS if name not in LONG] if whole else arguments.fault
    found = Table.read(KEPT, arguments) if whole and not arguments.again else Table.of(arguments)
    try:
        todo = [name for name in names if name not in found.rows]
        while todo:
            folder = Path(tempfile.mkdtemp(prefix="voxelmill-faults-"))
            all_good = True
            # A fault that has left something behind takes nothing to the next one.
            with Installation(folder) as installation:
                while todo and all_good:
                    row = run_fault(folder, installation, todo.pop(0), arguments)
                    found.rows[row.name] = row
                    if whole:
                        found.write(KEPT)
                    all_good = not (row.lost or row.duplicated)
            if all_good:
                shutil.rmtree(folder)  # else the logs are wanted
    except MissingError as error:
        sys.stderr.write(f"faults: {error}\n")
        return 3
    print()
    table(*found.cells(names))
    if whole:
        found.publish(arguments.page)
        KEPT.unlink()
    rows = [found.rows[name] for name in names]
    lost, duplicated = sum(row.lost for row in rows), sum(row.duplicated for row in rows)
    figures = {name: found.rows[name].figures() for name in names}
    aims = {"lost": Aim(lost, 0, at_most=True), "duplicated": Aim(duplicated, 0, at_most=True)}
    end("faults", aims, {"runs": sum(row.runs for row in rows), "faults": figures})
    return 1 if lost or duplicated else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    sys.exit(main())
