"""What every benchmark ends with: a table for people and one JSON object as the last line."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure with its aim. `at_most` says which side of the aim is good."""

    value: float
    aim: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the figure is on the good side."""
        return self.value <= self.aim if self.at_most else self.value >= self.aim


def table(headings: list[str], rows: list[list[str]]) -> None:
    """Print a table with columns of even width."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    for row in [headings, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def end(bench: str, aims: dict[str, Aim], figures: dict[str, object]) -> None:
    """Print the last line."""
    document = {
        "bench": bench,
        "aims": {name: {"value": round(aim.value, 4), "aim": aim.aim, "met": aim.met} for name, aim in aims.items()},
        "figures": figures,
    }
    print(json.dumps(document))
