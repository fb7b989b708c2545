"""The quality gate, on a torso with known sides and on statistics that are made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from unit.segment.torso import silent, torso
from voxelmill_segment import usual
from voxelmill_segment.labels import LUNG_LEFT, LUNG_RIGHT, SEGMENTS
from voxelmill_segment.quality import Flag, FlagCode, check
from voxelmill_segment.statistics import SegmentStatistics, measure
from voxelmill_segment.threshold import ThresholdSegmenter
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.tasks import OPEN
from voxelmill_shared.plan import Plan

if TYPE_CHECKING:
    from voxelmill_segment.segmenter import LabelMap
    from voxelmill_shared.imaging.volume import Volume


@pytest.fixture(scope="module")
def segmented() -> tuple[Volume, LabelMap]:
    """A torso and what the model `threshold` finds in it."""
    volume = torso()
    return volume, ThresholdSegmenter().segment(volume, Plan(), silent)


def flags(volume: Volume, label_map: LabelMap) -> dict[FlagCode, Flag]:
    return {flag.code: flag for flag in check(measure(volume.voxels, label_map))}


def organ(name: str, left: float = 0.0, **about: object) -> SegmentStatistics:
    """An organ in the middle of its usual range, whole, so many millimetres left of the midline."""
    usual_range = usual.usual_range(name)
    volume = (usual_range.low + usual_range.high) / 2 if usual_range else 100.0
    given = {
        "voxels": 1000,
        "volume_ml": volume,
        "largest_component": 1.0,
        "components": 1,
        "centroid_mm": (left, 0.0, 0.0),
    }
    return SegmentStatistics(number=1, name=name, **{**given, **about})  # type: ignore[arg-type]


def absent(name: str) -> SegmentStatistics:
    return SegmentStatistics(number=1, name=name)


def codes(*segments: SegmentStatistics) -> dict[FlagCode, tuple[str, ...]]:
    return {flag.code: flag.segments for flag in check(segments)}


def test_a_sound_torso_has_no_flag(segmented: tuple[Volume, LabelMap]) -> None:
    """Soft tissue, fat and bones run on beyond the edge, as they always do: that is no news."""
    assert flags(*segmented) == {}


def test_swapped_lungs_are_seen(segmented: tuple[Volume, LabelMap]) -> None:
    """The left lung's label on the right one, and the other way round."""
    volume, label_map = segmented
    swap = np.arange(256, dtype=np.uint8)
    swap[[LUNG_LEFT.number, LUNG_RIGHT.number]] = LUNG_RIGHT.number, LUNG_LEFT.number
    flag = flags(volume, replace(label_map, labels=swap[label_map.labels]))[FlagCode.SIDES]
    assert set(flag.segments) == {"lung_left", "lung_right"}
    assert flag.line.startswith("on the wrong side of the body: lung_left, lung_right")


def test_a_mirrored_affine_is_seen(segmented: tuple[Volume, LabelMap]) -> None:
    """The same labels with an affine that takes left for right."""
    volume, label_map = segmented
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ label_map.affine
    assert set(flags(volume, replace(label_map, affine=mirrored))) == {FlagCode.SIDES}


def test_cropped_lungs_are_seen(segmented: tuple[Volume, LabelMap]) -> None:
    """The upper half alone: the lungs are cut at their lower end, and nothing is called too small for that."""
    volume, label_map = segmented
    cut = flags(replace(volume, voxels=volume.voxels[34:]), replace(label_map, labels=label_map.labels[34:]))
    assert set(cut[FlagCode.CUT].segments) >= {"lung_left", "lung_right"}
    assert "lung_left (I)" in cut[FlagCode.CUT].line
    assert FlagCode.RANGE not in cut


def test_scattered_labels_are_seen(segmented: tuple[Volume, LabelMap]) -> None:
    """A fifth of the left lung's voxels, thrown over the volume: many parts, the largest of them a small share."""
    volume, label_map = segmented
    labels = label_map.labels.copy()
    inside = np.flatnonzero(labels.ravel() == LUNG_LEFT.number)
    rng = np.random.default_rng(1)
    labels.ravel()[inside] = 0
    labels.ravel()[rng.choice(labels.size, inside.size // 5, replace=False)] = LUNG_LEFT.number
    flag = flags(volume, replace(label_map, labels=labels))[FlagCode.FRAGMENTED]
    assert "lung_left" in flag.segments
    assert "parts" in flag.line


def test_a_missing_lung_is_seen(segmented: tuple[Volume, LabelMap]) -> None:
    """The other lung and the airways are there."""
    volume, label_map = segmented
    keep = np.arange(256, dtype=np.uint8)
    keep[LUNG_LEFT.number] = 0
    found = flags(volume, replace(label_map, labels=keep[label_map.labels]))
    assert found[FlagCode.MISSING].segments == ("lung_left",)
    assert "lung_left beside lung_right and airways" in found[FlagCode.MISSING].line


def test_nothing_at_all_is_one_flag(segmented: tuple[Volume, LabelMap]) -> None:
    """All that was asked for is named once."""
    volume, label_map = segmented
    (flag,) = flags(volume, replace(label_map, labels=np.zeros_like(label_map.labels))).values()
    assert flag.code is FlagCode.NOTHING
    assert len(flag.segments) == len(label_map.segments)


@pytest.mark.parametrize(("organ_name", "neighbours"), usual.NEIGHBOURS)
def test_an_organ_is_missed_among_its_neighbours_alone(organ_name: str, neighbours: tuple[str, ...]) -> None:
    """Whichever of them is not there either, nothing is known; nor of what nobody asked for."""
    there = [organ(name, 50.0 if "left" in name else -50.0 if "right" in name else 0.0) for name in neighbours]
    assert organ_name in codes(absent(organ_name), *there)[FlagCode.MISSING]
    assert FlagCode.MISSING not in codes(*there)
    for one in range(len(there)):
        few = [absent(other.name) if n == one else other for n, other in enumerate(there)]
        assert organ_name not in codes(absent(organ_name), *few).get(FlagCode.MISSING, ())


def test_a_gap_in_a_row_is_seen() -> None:
    """A vertebra between two others, a rib; not the ones beyond the field of view."""
    spine = [absent("vertebrae_T9"), organ("vertebrae_T10"), absent("vertebrae_T11"), organ("vertebrae_L1")]
    ribs = [organ("rib_left_3", 60), absent("rib_left_4"), organ("rib_left_5", 60), absent("rib_left_6")]
    assert codes(*spine, *ribs) == {FlagCode.MISSING: ("vertebrae_T11", "rib_left_4")}


def test_a_side_without_its_twin_is_held_against_the_spine() -> None:
    """One kidney: on the wrong side of the spine it is flagged; a little beyond the midline it is not."""
    assert codes(organ("kidney_left", -40.0), organ("vertebrae_L2", 5.0)) == {FlagCode.SIDES: ("kidney_left",)}
    assert codes(organ("kidney_left", -2.0), organ("vertebrae_L2", 5.0)) == {}
    assert codes(organ("kidney_left", -40.0)) == {}


def test_when_most_sides_are_wrong_the_volume_may_be_mirrored() -> None:
    """One wrong pair of three says nothing of the volume."""
    pairs = [
        organ(f"{name}_{side}", 50.0 if side == "left" else -50.0)
        for name in ("hip", "femur", "kidney")
        for side in ("left", "right")
    ]
    assert check(pairs) == ()
    one = [replace(p, centroid_mm=(-p.centroid_mm[0], 0.0, 0.0)) if "kidney" in p.name else p for p in pairs]
    (flag,) = check(one)
    assert (flag.code, "mirrored" in flag.line) == (FlagCode.SIDES, False)
    (flag,) = check([replace(p, centroid_mm=(-p.centroid_mm[0], 0.0, 0.0)) for p in pairs])
    assert (flag.code, "may be mirrored" in flag.line) == (FlagCode.SIDES, True)


def test_a_liver_on_the_left_is_seen() -> None:
    """A network that knows an organ by its looks finds it in a mirrored volume too, on the other side."""
    assert codes(organ("liver", -60.0), organ("spleen", 90.0), organ("stomach", 40.0)) == {}
    assert set(codes(organ("liver", 60.0), organ("spleen", -90.0), organ("stomach", -40.0))) == {FlagCode.MIRRORED}


def test_volumes_out_of_range_are_seen() -> None:
    """Both ways; what is cut may be small, and never too large."""
    small, large = organ("spleen", 60.0, volume_ml=5.0), organ("liver", -60.0, volume_ml=5000.0)
    (flag,) = check([small, large])
    assert (flag.code, flag.segments) == (FlagCode.RANGE, ("spleen", "liver"))
    assert "spleen 5 mL (66 to 550)" in flag.line
    cut = {"touches_border": True, "border_faces": ("I",)}
    found = codes(replace(small, **cut), replace(large, **cut))
    assert (found[FlagCode.RANGE], found[FlagCode.CUT]) == (("liver",), ("spleen", "liver"))


def test_what_has_many_parts_is_not_in_pieces() -> None:
    """Vessels, cysts, nodules and all bones together are many parts by nature; of a cut organ less is asked."""
    many = ("bones", "lung_vessels", "kidney_cyst_left", "lung_nodules", "costal_cartilages", "pleural_effusion")
    assert codes(*(organ(name, 50.0, largest_component=0.05, components=40) for name in many)) == {}
    broken = organ("liver", largest_component=0.6, components=3)
    assert FlagCode.FRAGMENTED in codes(broken)
    assert FlagCode.FRAGMENTED not in codes(replace(broken, touches_border=True))


def test_the_tables_speak_of_segments_that_there_are() -> None:
    """Every name of the gate's tables is a class of an open task or a segment of `threshold`: no check is idle."""
    known = {name for task in OPEN for name in library.classes(task).values()} | {one.name for one in SEGMENTS}
    stems = known | {usual.split_side(name)[0] for name in known}
    named = {name for one, others in usual.NEIGHBOURS for name in (one, *others)}
    named |= {name for row in usual.ROWS for name in row} | {name for pair in usual.RIGHT_OF for name in pair}
    assert named <= known
    assert set(usual.RANGES) <= stems
    assert not usual._WHOLE - stems


def test_ranges_are_ranges() -> None:
    """Each has a source, and the mean that the source gives lies well inside."""
    for name, one in usual.RANGES.items():
        assert 0 < one.low < one.high / 2, name
        assert one.source
    assert usual.RANGES["liver"].low < 594  # the smallest of 369 healthy livers: Feng et al. 2017
    assert usual.RANGES["liver"].high > 2250  # the largest
    assert usual.RANGES["spleen"].high > 314.5  # of 140 spleens: Prassopoulos et al. 1997


def test_long_lists_are_shortened() -> None:
    """A line stays a line; the flag names them all."""
    cut = [organ(f"lung_upper_lobe_{side}", 50.0 if side == "left" else -50.0) for side in ("left", "right")]
    cut += [
        organ(n)
        for n in ("brain", "heart", "pancreas", "prostate", "stomach", "duodenum", "gallbladder", "urinary_bladder")
    ]
    (flag,) = check([replace(one, touches_border=True, border_faces=("S",)) for one in cut])
    assert len(flag.segments) == 10
    assert flag.line.endswith("and 2 more")


def test_the_page_has_the_ranges_of_the_table() -> None:
    """`docs/quality-gate.md` says what is checked."""
    page = (Path(__file__).parents[3] / "docs" / "quality-gate.md").read_text(encoding="utf-8")
    for name, one in usual.RANGES.items():
        assert f"{one.low:g} to {one.high:g}" in page, name
    assert all(f"| `{code}` |" in page for code in FlagCode)
