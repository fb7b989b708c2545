"""Left and right in the names of segments."""

from __future__ import annotations


def split_side(name: str) -> tuple[str, str]:
    """Return a segment's name without its side, and the side: `left`, `right` or nothing.

    `lung_left`, `rib_left_3`, `left_maxillary_sinus`, `upper_left_canine_fdi23` are all on the left.
    """
    words = name.split("_")
    for side in ("left", "right"):
        if side in words:
            words.remove(side)
            return "_".join(words), side
    return name, ""
