"""Cleaning descriptions: of a text only words that say how an image was made are left (PS3.15 E.3.5).

A list of what is allowed, never of what is forbidden: no list holds every name.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z]+|\d+(?:[.,]\d+)?|[^A-Za-z\d\s]+|\s+")
_LONGEST_NUMBER: Final = 3
"""Digits of a number that is kept: thickness, kernel, window. Longer ones may be dates or numbers of a patient."""

ALLOWED: Final = frozenset((resources.files(__package__) / "words.txt").read_text().split())
"""Lower case. Some are surnames as well: what this object calls its own people by, `names` finds."""


def clean(text: str) -> str:
    """Return what of a description may stay, or an empty text.

    Words of `ALLOWED` and numbers of up to three digits are kept, with the punctuation between two of them that stand
    side by side; everything else goes, what holds characters beyond ASCII included.
    """
    kept: list[str] = []
    gap = ""
    for piece in _WORD.findall(text):
        if piece.isspace():
            gap = gap or " "
        elif not piece[0].isalnum() or not piece.isascii():
            gap = piece if piece in {"-", "_", "/", ".", "+"} and not gap else " "
        elif _may_stay(piece):
            kept += [gap if kept else "", piece]
            gap = ""
        else:
            gap = " "
    return "".join(kept)


def _may_stay(piece: str) -> bool:
    if piece[0].isdigit():
        return sum(character.isdigit() for character in piece) <= _LONGEST_NUMBER
    return piece.lower() in ALLOWED
