"""Cleaning descriptions: of a text only words that say how an image was made are left (PS3.15 E.3.5).

A list of what is allowed, never of what is forbidden: no list holds every name.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

_PIECE: Final = re.compile(r"\d+[.,]\d+(?![^\W_])|[^\W_]+|[\W_]")
_PART: Final = re.compile(r"\d+|[^\W\d_]+")
_LONGEST_NUMBER: Final = 3
"""Digits of a number that is kept: thickness, kernel, window. Longer ones may be dates or numbers of a patient."""

_JOINS: Final = frozenset("-_/.+")
ALLOWED: Final = frozenset((resources.files(__package__) / "words.txt").read_text().split())
"""Lower case. Some are surnames as well: what this object calls its own people by, `names` finds."""


def clean(text: str) -> str:
    """Return what of a description may stay, or an empty text.

    Words of `ALLOWED` and numbers of up to three digits are kept, with the punctuation between two of them that stand
    side by side; everything else goes, what holds characters beyond ASCII included. Numbers that follow one another
    count as one: 03.02.51 is a date, and 471 108 15 the number of a patient.
    """
    kept: list[str] = []
    gap = ""
    pieces = _PIECE.findall(text)
    too_long = _long_runs(pieces)
    for place, piece in enumerate(pieces):
        if piece[0].isalnum():
            stays = place not in too_long and _may_stay(piece)
            kept += [gap if kept else "", piece] if stays else []
            gap = "" if stays else " "
        else:
            gap = piece if piece in _JOINS and not gap else " "
    return "".join(kept)


def _long_runs(pieces: list[str]) -> set[int]:
    """Return the places of numbers that with their neighbours have more digits than one may have."""
    found: set[int] = set()
    run: list[int] = []
    for place, piece in enumerate([*pieces, "end"]):
        if piece[0].isdigit() and not any(character.isalpha() for character in piece):
            run.append(place)
        elif piece[0].isalnum():
            if sum(character.isdigit() for one in run for character in pieces[one]) > _LONGEST_NUMBER:
                found.update(run)
            run = []
    return found


def _may_stay(piece: str) -> bool:
    """Whether a word or number is allowed: T1, 5mm and L4L5 are if all of their parts are."""
    if sum(character.isdigit() for character in piece) > _LONGEST_NUMBER:
        return False
    return piece.lower() in ALLOWED or all(part.isdecimal() or part.lower() in ALLOWED for part in _PART.findall(piece))
