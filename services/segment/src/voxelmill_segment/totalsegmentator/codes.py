"""TotalSegmentator's classes as segments: what they are, in codes and colours.

A class's code is, in this order: ours where the library's does not say what it should; the library's own
(`resources/totalsegmentator_snomed_mapping.csv`); ours from the SNOMED CT concepts that the DICOM Standard uses; else a
private code of scheme 99VOXELMILL, which says no more than the name. `docs/segment-codes.md` lists them all; it is
printed by `python -m voxelmill_segment.totalsegmentator.codes`.
"""

from __future__ import annotations

import hashlib
import sys

from voxelmill_segment.labels import LEFT, RIGHT, Code, Segment
from voxelmill_segment.sides import split_side
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.colours import colour

PRIVATE_SCHEME = "99VOXELMILL"
"""Coding Scheme Designator of classes without a SNOMED CT code (PS3.16 8.2: private ones begin with 99)."""

_STRUCTURE = Code("91723000", "Anatomical Structure")  # CID 7150
_ALTERED = Code("49755003", "Morphologically Abnormal Structure")  # CID 7150
_OBJECT = Code("260787004", "Physical object")  # CID 7150
_SIDES = {"left": LEFT, "right": RIGHT, "": None}

_CORRECTED: dict[str, Code] = {
    # 29700009, which the library has for both sides, is the right one alone in SNOMED CT.
    "subclavian_artery": Code("36765005", "Subclavian artery"),
}
_CATEGORIES: dict[str, Code] = {
    # The library says 123037004, Body structure, where CID 7150 has 91723000.
    "123037004": _STRUCTURE,
    "49755003": _ALTERED,
    "260787004": _OBJECT,
    "85756007": Code("85756007", "Tissue"),
}

_TYPES: dict[str, Code] = {
    "lung": Code("39607008", "Lung"),
    "lung_arteries": Code("81040000", "Pulmonary artery"),
    "lung_veins": Code("430757002", "Pulmonary vein"),
    "vertebrae": Code("51282000", "Vertebra"),
    "abdominal_cavity": Code("52731004", "Abdominal cavity"),
    "thoracic_cavity": Code("43799004", "Thoracic cavity"),
    "pericardium": Code("76848001", "Pericardium"),
    "mediastinum": Code("72410000", "Mediastinum"),
    "breast": Code("76752008", "Breast"),
    "liver_segment_1": Code("71133005", "Caudate lobe of liver"),
    "liver_segment_2": Code("277956007", "Couinaud hepatic segment II"),
    "liver_segment_3": Code("277957003", "Couinaud hepatic segment III"),
    "liver_segment_4": Code("277958008", "Couinaud hepatic segment IV"),
    "liver_segment_5": Code("277959000", "Couinaud hepatic segment V"),
    "liver_segment_6": Code("277960005", "Couinaud hepatic segment VI"),
    "liver_segment_7": Code("277961009", "Couinaud hepatic segment VII"),
    "liver_segment_8": Code("277962002", "Couinaud hepatic segment VIII"),
    "pectoralis_major": Code("60005003", "Pectoralis major muscle"),
    "pectoralis_minor": Code("18686000", "Pectoralis minor muscle"),
    "serratus_anterior": Code("18346003", "Serratus anterior muscle"),
    "latissimus_dorsi": Code("15665001", "Latissimus dorsi muscle"),
    "trapezius": Code("31764008", "Trapezius muscle"),
    "erector_spinae": Code("44947003", "Erector spinae muscle"),
    "sternocleidomastoid": Code("22823000", "Sternocleidomastoid muscle"),
    "anterior_scalene": Code("50755001", "Scalenus anterior muscle"),
    "deltoid": Code("35259002", "Deltoid muscle"),
    "supraspinatus": Code("6423006", "Supraspinatus muscle"),
    "infraspinatus": Code("72573008", "Infraspinatus muscle"),
    "subscapularis": Code("90588001", "Subscapularis muscle"),
    "ventricle_frontal_horn": Code("30399003", "Anterior horn of lateral ventricle"),
    "ventricle_occipital_horn": Code("52943005", "Posterior horn of lateral ventricle"),
    "ventricle_temporal_horn": Code("53118009", "Inferior horn of lateral ventricle"),
    "third_ventricle": Code("49841001", "Third ventricle"),
    "fourth_ventricle": Code("35918002", "Fourth ventricle"),
    "caudate_nucleus": Code("11000004", "Caudate nucleus"),
    "eye": Code("81745001", "Eye"),
    "eyeball": Code("81745001", "Eye"),
    "eye_lens": Code("78076003", "Lens of eye"),
    "optic_nerve": Code("18234004", "Optic nerve"),
    "parotid_gland": Code("45289007", "Parotid gland"),
    "nasopharynx": Code("71836000", "Nasopharynx"),
    "oropharynx": Code("31389004", "Oropharynx"),
    "hypopharynx": Code("81502006", "Hypopharynx"),
    "pharynx": Code("54066008", "Pharynx"),
    "nasal_cavity": Code("279549004", "Nasal cavity"),
    "soft_palate": Code("49460000", "Soft palate"),
    "tongue": Code("21974007", "Tongue"),
    "hyoid": Code("21387005", "Hyoid bone"),
    "internal_carotid_artery": Code("86117002", "Internal carotid artery"),
    "internal_jugular_vein": Code("12123001", "Internal jugular vein"),
    "mandible": Code("91609006", "Mandible"),
    "lower_jawbone": Code("91609006", "Mandible"),
    "upper_jawbone": Code("70925003", "Maxilla"),
    "maxillary_sinus": Code("15924003", "Maxillary sinus"),
    "sinus_maxillary": Code("15924003", "Maxillary sinus"),
    "sinus_frontal": Code("55060009", "Frontal sinus"),
}
"""What the library has no code for, of both sides: every concept stands in the DICOM Standard."""

_LESIONS: dict[str, Code] = {
    "lung_nodules": Code("27925004", "Nodule"),
    "liver_lesions": Code("52988006", "Lesion"),
}

_TEETH: dict[int, tuple[str, str]] = {
    11: ("422653006", "permanent maxillary right central incisor"),
    12: ("424877001", "permanent maxillary right lateral incisor"),
    13: ("860767006", "permanent maxillary right canine"),
    14: ("57826002", "maxillary right first premolar"),
    15: ("36492000", "maxillary right second premolar"),
    16: ("865995000", "permanent maxillary right first molar"),
    17: ("863902006", "permanent maxillary right second molar"),
    18: ("68085002", "maxillary right third molar"),
    21: ("424399000", "permanent maxillary left central incisor"),
    22: ("423185002", "permanent maxillary left lateral incisor"),
    23: ("860780009", "permanent maxillary left canine"),
    24: ("61897005", "maxillary left first premolar"),
    25: ("23226009", "maxillary left second premolar"),
    26: ("865988009", "permanent maxillary left first molar"),
    27: ("863901004", "permanent maxillary left second molar"),
    28: ("87704003", "maxillary left third molar"),
    31: ("425106001", "permanent mandibular left central incisor"),
    32: ("423331005", "permanent mandibular left lateral incisor"),
    33: ("860782001", "mandibular left canine"),
    34: ("2400006", "mandibular left first premolar"),
    35: ("24573005", "mandibular left second premolar"),
    36: ("866006002", "mandibular left first molar"),
    37: ("863898000", "mandibular left second molar"),
    38: ("74344005", "mandibular left third molar"),
    41: ("424575004", "permanent mandibular right central incisor"),
    42: ("423937004", "permanent mandibular right lateral incisor"),
    43: ("860785004", "mandibular right canine"),
    44: ("80140008", "mandibular right first premolar"),
    45: ("8873007", "mandibular right second premolar"),
    46: ("866005003", "mandibular right first molar"),
    47: ("863899008", "mandibular right second molar"),
    48: ("38994002", "mandibular right third molar"),
}
"""Teeth by their FDI number (ISO 3950); the concept names the side, so there is no modifier."""


def segment_of(label: int, name: str) -> Segment:
    """Describe a class of the library as a segment.

    Parameters
    ----------
    label
        The class's label in its task: the segment's number.
    name
        The class's name, `kidney_left`.

    Raises
    ------
    NotInstalledError
        If the library is not there.
    """
    category, kind, modifier = _codes(name)
    return Segment(label, name, colour(name), category, kind, modifier, name.replace("_", " "))


def private_code(stem: str) -> Code:
    """Return the private code of a class, by its name without the side: `TS` and eight hex digits of its SHA-256."""
    return Code(f"TS{hashlib.sha256(stem.encode()).hexdigest()[:8]}", stem.replace("_", " ")[:64], PRIVATE_SCHEME)


def _codes(name: str) -> tuple[Code, Code, Code | None]:
    """Return category, type and modifier (PS3.3 C.8.20.4)."""
    stem, side = split_side(name)
    if stem in _CORRECTED:
        return _STRUCTURE, _CORRECTED[stem], _SIDES[side]
    row = library.snomed_table().get(name)
    if row is not None:
        return _of_library(row, side)
    if stem in _LESIONS:
        return _ALTERED, _LESIONS[stem], None
    if "_fdi" in stem and (number := int(stem.rpartition("_fdi")[2])) in _TEETH:
        value, meaning = _TEETH[number]
        return _STRUCTURE, Code(value, f"{meaning} tooth"[0].upper() + f"{meaning} tooth"[1:]), None
    if stem in _TYPES:
        return _STRUCTURE, _TYPES[stem], _SIDES[side]
    return _STRUCTURE, private_code(stem), _SIDES[side]


def _of_library(row: library.SnomedRow, side: str) -> tuple[Code, Code, Code | None]:
    (category, _), (value, meaning), (modifier, of_modifier) = row.category, row.type, row.modifier
    kind = Code(value, meaning)
    if side and "right" not in meaning.lower().split() and "left" not in meaning.lower().split():
        return _CATEGORIES[category], kind, _SIDES[side]  # cysts have none in the library
    return _CATEGORIES[category], kind, Code(modifier, of_modifier) if modifier and not side else None


def table() -> str:
    """Return the Markdown of `docs/segment-codes.md`: every class of every task that can be asked for."""
    from voxelmill_segment.totalsegmentator.tasks import offered  # noqa: PLC0415 - it needs the plan's models

    names = {name for task in offered() for name in library.classes(task).values()}
    lines, private = [], 0
    for segment in (segment_of(0, name) for name in sorted(names)):
        code = segment.type
        private += code.scheme == PRIVATE_SCHEME
        side = segment.modifier.meaning if segment.modifier else ""
        rgb = "#{:02x}{:02x}{:02x}".format(*segment.rgb)
        cells = (segment.name, segment.category.meaning, f"{code.scheme} {code.value}", code.meaning, side, rgb)
        lines.append(f"| {' | '.join(cells)} |")
    return _PAGE.format(classes=len(names), private=private, lines="\n".join(lines))


_PAGE = """# Codes and colours of TotalSegmentator's classes

Printed by `python -m voxelmill_segment.totalsegmentator.codes`. Of {classes} classes {private} have no code in SNOMED
CT that the library or the DICOM Standard names. Theirs is private, scheme 99VOXELMILL: `TS` and eight hex digits of the
SHA-256 of the class's name without its side.

| class | category | code | meaning | side | colour |
|---|---|---|---|---|---|
{lines}
"""


if __name__ == "__main__":
    sys.stdout.write(table())
