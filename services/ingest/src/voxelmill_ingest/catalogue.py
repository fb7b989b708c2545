"""Prints the catalogue of reasons and warnings: `python -m voxelmill_ingest.catalogue > docs/validation.md`."""

from __future__ import annotations

import sys

from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import Severity

_HEAD = """\
# Validation

What ingest looks for in an object, told by its header and its size, and what it says. This page is made from the code
(`python -m voxelmill_ingest.catalogue`); a test holds the two together.

- **reject**: the object is broken. `object.rejected` says so with the code and one line of detail, and `voxelmill run`
  ends with exit code 1.
- **skip**: sound, but no image for this pipeline. `object.rejected` with severity `skip`; nothing failed.
- **warn**: taken, with a warning. It stands as `code: detail` in `object.validated`, counted over the series in its
  manifest, and in the receipt as `ingest: code: detail`.

What can only be seen when pixels are decoded or slices are stacked, the later stages refuse with codes of their own.
Nothing here, and no log, holds a patient's name or number.
"""
_TITLES = {
    "reject": "Rejected",
    "skip": "Skipped",
    "warn": "Taken with a warning",
}


def page() -> str:
    """Return the catalogue as a Markdown page."""
    sections: dict[str, list[Reason | Caution]] = {
        "reject": [reason for reason in Reason if reason.severity is Severity.REJECT],
        "skip": [reason for reason in Reason if reason.severity is Severity.SKIP],
        "warn": list(Caution),
    }
    parts = [_HEAD]
    for severity, members in sections.items():
        parts.append(f"\n## {_TITLES[severity]}\n\n| code | meaning | source | what to do |\n|---|---|---|---|\n")
        parts += [f"| `{one.value}` | {one.explanation} | {one.source} | {one.advice} |\n" for one in members]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
