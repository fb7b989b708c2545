"""Files made wrong on purpose: a seeded generator, and a runner that holds ingest and thumbnail to what they promise.

Real files go in, mutants come out, and each goes through the inspection, the unpacking, the reading of volumes and the
drawing of the product itself, in child processes with bounds. Nothing of the files is kept.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from mutants import archives, dicom, images, volumes
from mutants.mutant import KINDS, Mutant

if TYPE_CHECKING:
    from mutants.seeds import Seeds

__all__ = ["Mutant", "archives", "dicom", "images", "kinds", "make", "volumes"]


def kinds() -> list[str]:
    """Name the kinds of mutants."""
    return list(KINDS.makers)


def make(seeds: Seeds, kind: str, number: int, seed: int) -> Mutant:
    """Make the mutant of a kind and number, the same one for the same seed."""
    return KINDS.makers[kind](Random(f"{seed}/{kind}/{number}"), seeds)
