"""Codes and colours of TotalSegmentator's classes, held to the Standard and to the eye."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom.sr import _concepts_dict

from voxelmill_segment.labels import LEFT, RIGHT, Code
from voxelmill_segment.totalsegmentator import codes, library
from voxelmill_segment.totalsegmentator.tasks import OPEN, offered

ROOT = Path(__file__).parents[3]
STANDARD = {
    value: meaning for names in _concepts_dict.concepts["SCT"].values() for value, (meaning, _) in names.items()
}
"""SNOMED CT concepts that the DICOM Standard names, by value."""
TOTAL = library.classes("total")
LEAST_APART = 10.0
"""Of colours that lie side by side, in CIELab (CIE76); 2.3 is the least that can be told apart."""


def every_class() -> set[str]:
    return {name for task in offered() for name in library.classes(task).values()}


def lab(name: str) -> np.ndarray:
    """Return a class's colour in CIELab."""
    value = hd.color.CIELabColor.from_rgb(*codes.segment_of(1, name).rgb)
    return np.array([value.l_star, value.a_star, value.b_star])


def apart(one: str, other: str) -> float:
    return float(np.linalg.norm(lab(one) - lab(other)))


def test_every_class_of_every_task_is_a_segment() -> None:
    """Each has codes that DICOM can hold, and a colour."""
    for name in every_class():
        segment = codes.segment_of(7, name)
        assert (segment.number, segment.name) == (7, name)
        for code in (segment.category, segment.type, segment.modifier):
            if code is not None:
                assert 0 < len(code.value) <= 16
                assert 0 < len(code.meaning) <= 64
                assert code.scheme in {"SCT", codes.PRIVATE_SCHEME}
        assert all(0 <= part <= 255 for part in segment.rgb)


def test_our_codes_stand_in_the_standard() -> None:
    """No concept is made up: DICOM names each, and means by it what we say."""
    ours = [*codes._CORRECTED.values(), *codes._TYPES.values(), *codes._LESIONS.values(), *codes._CATEGORIES.values()]
    ours += [Code(value, meaning) for value, meaning in codes._TEETH.values()]
    for code in ours:
        words = set(re.findall(r"\w{4,}", code.meaning.lower()))
        meant = STANDARD[code.value].lower()
        assert all(word in meant for word in words - {"muscle"}), (code, meant)


def test_the_librarys_codes_are_taken_where_it_has_them() -> None:
    """But for the one that we correct."""
    taken = {
        name for name, row in library.snomed_table().items() if codes.segment_of(1, name).type.value == row.type[0]
    }
    assert set(library.snomed_table()) - taken == {"subclavian_artery_left", "subclavian_artery_right"}


def test_what_has_no_code_says_so() -> None:
    """A private code, the same for ever and for both sides, unlike every other; none for the classes of `total`."""
    private = {n: codes.segment_of(1, n).type for n in every_class() if codes.segment_of(1, n).type.scheme != "SCT"}
    assert private["temporalis_left"] == private["temporalis_right"] == Code("TS604e0877", "temporalis", "99VOXELMILL")
    by_stem = {code.meaning: code.value for code in private.values()}
    assert len(set(by_stem.values())) == len(by_stem)
    assert not set(private) & set(TOTAL.values())


@pytest.mark.parametrize(
    ("name", "category", "value", "modifier"),
    [
        ("kidney_left", "91723000", "64033007", LEFT),
        ("rib_right_3", "91723000", "25888004", RIGHT),
        ("heart_atrium_left", "91723000", "82471001", None),  # the concept itself is the left one
        ("lung_middle_lobe_right", "91723000", "72481006", None),
        ("kidney_cyst_right", "49755003", "367643001", RIGHT),
        ("liver_lesions", "49755003", "52988006", None),
        ("hip_implant", "260787004", "40388003", None),
        ("left_maxillary_sinus", "91723000", "15924003", LEFT),
        ("upper_left_canine_fdi23", "91723000", "860780009", None),
        ("subcutaneous_fat", "85756007", "67769002", None),
    ],
)
def test_sides_and_categories(name: str, category: str, value: str, modifier: Code | None) -> None:
    """The side is a modifier, unless the concept has it already."""
    segment = codes.segment_of(1, name)
    assert (segment.category.value, segment.type.value, segment.modifier) == (category, value, modifier)


def test_classes_of_one_task_have_colours_of_their_own() -> None:
    """No two of a task have the same colour."""
    for task in OPEN:
        names = list(library.classes(task).values())
        colours = {codes.segment_of(1, name).rgb for name in names}
        rows = [name for name in names if re.match(r"vertebrae_[CTL]\d|rib_|.*_fdi\d", name)]
        assert len(colours) >= len(names) - len(rows), task


def test_neighbours_in_a_row_can_be_told_apart() -> None:
    """Vertebrae one above the other, ribs above each other and beside their vertebra, teeth, segments of the liver."""
    spine = [f"vertebrae_{r}{n}" for r, most in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, most + 1)]
    rows = [[*spine, "vertebrae_S1", "sacrum"], [f"liver_segment_{n}" for n in range(1, 9)]]
    rows += [[f"rib_{side}_{n}" for n in range(1, 13)] for side in ("left", "right")]
    teeth = {int(n.rpartition("fdi")[2]): n for n in library.classes("teeth").values() if re.search(r"fdi\d\d$", n)}
    rows += [[teeth[q * 10 + n] for n in range(1, 9)] for q in (1, 2, 3, 4)]
    pairs = [pair for row in rows for pair in itertools.pairwise(row)]
    pairs += [
        (n, n.replace("left", "right"))
        for n in TOTAL.values()
        if "left" in n and n.replace("left", "right") in TOTAL.values()
    ]
    close = {pair: round(apart(*pair), 1) for pair in pairs if apart(*pair) < LEAST_APART}
    assert not close


@pytest.mark.data
def test_what_touches_in_a_body_can_be_told_apart(data: Path) -> None:
    """Every two classes of `total` that have a common border of 20 faces or more in a real case."""
    import nibabel as nib

    labels = np.asarray(nib.load(data / "nifti" / "totalseg" / "example_seg_fast_force_split.nii.gz").dataobj)
    touching: dict[tuple[int, int], int] = {}
    for axis in range(3):
        one, other = np.delete(labels, 0, axis).ravel(), np.delete(labels, -1, axis).ravel()
        faces = (one != other) & (one > 0) & (other > 0)
        met, counts = np.unique(np.sort(np.stack((one[faces], other[faces])), 0), axis=1, return_counts=True)
        for pair, count in zip(met.T.tolist(), counts.tolist(), strict=True):
            touching[tuple(pair)] = touching.get(tuple(pair), 0) + count
    pairs = [(TOTAL[a], TOTAL[b]) for (a, b), count in touching.items() if count >= 20]
    assert len(pairs) > 40
    close = {pair: round(apart(*pair), 1) for pair in pairs if apart(*pair) < LEAST_APART}
    assert not close


def test_the_page_is_what_is_printed() -> None:
    """`docs/segment-codes.md` is up to date.

    If not: `python -m voxelmill_segment.totalsegmentator.codes > docs/segment-codes.md`.
    """
    assert (ROOT / "docs" / "segment-codes.md").read_text(encoding="utf-8") == codes.table()
