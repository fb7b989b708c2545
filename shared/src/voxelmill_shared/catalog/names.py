"""How patients' names are compared: without regard to case, to accents, and to empty components at the end."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ACCENTS: Final = re.compile("[\u0300-\u036f]")


def fold_name(name: str) -> str:
    """Return a DICOM person name (PS3.5 6.2.1) as the catalog compares it.

    `Müller^Jörg^^^` and `MULLER^Jorg` are `muller^jorg`. PS3.4 C.2.2.2.1 leaves it to the archive whether case and
    accents count. Wildcards pass through unchanged, so what is asked for is folded by the same function.
    """
    decomposed = unicodedata.normalize("NFKD", name).casefold()
    # Only the accents of alphabets: the voicing marks of kana tell one syllable from another.
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))
    return "=".join(" ".join(group.split()).rstrip("^ ") for group in plain.split("="))
