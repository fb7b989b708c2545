"""Text in the character sets that an object names (PS3.3 C.12.1.1.2, PS3.5 6.1), decoded by pydicom.

pydicom is imported where a text asks for it: most are plain ASCII, and ingest is started often and looks at much.
What is decoded here names people. It goes into no log, event or message.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.tags import PATIENT_ID, PATIENT_NAME, SPECIFIC_CHARACTER_SET
from voxelmill_ingest.values import texts
from voxelmill_shared.privacy import coded

if TYPE_CHECKING:
    from voxelmill_ingest.elements import Elements

_LATIN: Final = (100, 101, 109, 110, 144, 127, 126, 138, 148, 203, 166, 13)
_MULTI_BYTE: Final = (87, 159, 149, 58)
CHARACTER_SETS: Final = frozenset(
    {
        "",
        "ISO_IR 6",  # what the Standard means by an absent value, written out by many
        *(f"ISO_IR {number}" for number in (*_LATIN, 192)),
        *(f"ISO 2022 IR {number}" for number in (6, *_LATIN, *_MULTI_BYTE)),
        "GB18030",
        "GBK",
    }
)
"""The defined terms of Specific Character Set."""


def patient_name(found: Elements) -> str:
    """Return Patient's Name (0010,0010) in Unicode; what its character set cannot say is U+FFFD."""
    value = found.values.get(PATIENT_NAME, b"").strip(b" \0")
    terms = texts(found, SPECIFIC_CHARACTER_SET)
    if value.isascii() and b"\x1b" not in value and not terms[0].startswith("ISO_IR 13"):
        return value.decode("ascii")
    # See the module's docstring.
    from pydicom.charset import convert_encodings  # noqa: PLC0415 - costs 100 ms, and few objects need it
    from pydicom.valuerep import PersonName  # noqa: PLC0415 - as above

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is told by the replacement characters
        known = [term for term in terms if term in CHARACTER_SETS] or [""]
        return str(PersonName(value, convert_encodings(known)))


def about_characters(found: Elements) -> list[str]:
    """Return what is wrong with the character set of an object's text."""
    unknown = [term for term in texts(found, SPECIFIC_CHARACTER_SET) if term not in CHARACTER_SETS]
    said = [Caution.UNKNOWN_CHARACTER_SET.about(f"Specific Character Set is {coded(term)!r}") for term in unknown[:1]]
    if not found.values.get(PATIENT_NAME, b"").isascii() and "\N{REPLACEMENT CHARACTER}" in patient_name(found):
        said.append(Caution.UNDECODABLE_TEXT.about("Patient's Name is not in the object's character set"))
    return said


def patient_mark(found: Elements, series_instance_uid: str) -> str:
    """Return a mark that tells the patients of one series apart, and says nothing else of them.

    It is 32 bits of a digest of Patient ID, or of Patient's Name where that is empty, and of the series: the same
    person has another mark in every series. Empty where the object names nobody.
    """
    patient = found.values.get(PATIENT_ID, b"").strip(b" \0").decode("latin-1")
    if not patient:
        name = unicodedata.normalize("NFKC", patient_name(found)).casefold()
        patient = " ".join(name.partition("=")[0].replace("^", " ").split())
    return hashlib.sha256(f"{series_instance_uid}\n{patient}".encode()).hexdigest()[:8] if patient else ""
