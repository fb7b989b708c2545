"""The judge of the volume benchmark: right volumes pass however they are turned, wrong ones never do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from judge import holds_volume, judge
from judged import Candidate, Frame

COUNT, ROWS, COLUMNS = 9, 40, 32
SPACING, GAP = 1.5, 3.0


def world() -> np.ndarray:
    """Smooth values with detail in every direction, (slices, rows, columns)."""
    noise = np.random.default_rng(3).normal(0, 400, (COUNT, ROWS, COLUMNS))
    return np.rint(ndimage.gaussian_filter(noise, 1.2) * 8).astype(np.float32)


def acquired(values: np.ndarray, tilt: float = 0.0, heights: list[float] | None = None) -> list[Frame]:
    angle = np.radians(tilt)
    return [
        Frame(
            plane,
            np.array([-20.0, -30.0, height]),
            np.array([SPACING, 0, 0]),
            SPACING * np.array([0, np.cos(angle), -np.sin(angle)]),
            attributes={"InstanceNumber": str(k)},
        )
        for k, (plane, height) in enumerate(zip(values, heights or [GAP * k for k in range(len(values))], strict=True))
    ]


def candidate(frames: list[Frame], step: np.ndarray | None = None) -> Candidate:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = frames[0].column_step, frames[0].row_step
    affine[:3, 2] = (frames[-1].origin - frames[0].origin) / (len(frames) - 1) if step is None else step
    affine[:3, 3] = frames[0].origin
    return Candidate(np.stack([frame.values for frame in frames]), affine)


def turned(volume: Candidate) -> Candidate:
    """The same volume with axes exchanged and one flipped."""
    voxels, affine = np.flip(volume.voxels, 2), volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (voxels.shape[2] - 1)
    affine[:3, 0] *= -1
    return Candidate(voxels.transpose(1, 2, 0), affine[:, [2, 0, 1, 3]])


def test_a_right_volume_is_right():
    """Every voxel where it was acquired."""
    frames = acquired(world())
    verdict = judge([candidate(frames)], frames)
    assert (verdict.kind, verdict.frames, verdict.of, verdict.error) == ("right", COUNT, COUNT, 0.0)


def test_flips_and_exchanged_axes_do_not_matter():
    """The patient's space is what counts."""
    frames = acquired(world())
    assert judge([turned(candidate(frames))], frames[::-1]).kind == "right"


def test_a_sheared_affine_of_a_tilted_series_is_right_and_a_straight_one_wrong():
    """A gantry tilt is in the step from slice to slice."""
    frames = acquired(world(), tilt=15)
    assert judge([candidate(frames)], frames).kind == "right"
    straight = frames[0].normal * GAP * np.cos(np.radians(15))
    assert judge([candidate(frames, straight)], frames).kind == "wrong"


@pytest.mark.parametrize("off", [0.15, 1.0])
def test_a_volume_that_lies_elsewhere_is_wrong(off):
    """By more than 0.1 mm, sideways or along the normal."""
    frames = acquired(world())
    for axis in range(3):
        moved = candidate(frames)
        moved.affine[axis, 3] += off
        assert judge([moved], frames).kind == "wrong", axis


def test_a_volume_that_is_off_by_less_than_a_tenth_of_a_millimetre_is_right():
    """Scanners round their positions."""
    frames = acquired(world())
    moved = candidate(frames)
    moved.affine[1, 3] += 0.08
    assert judge([moved], frames).kind == "right"


def test_one_wrong_value_is_wrong():
    """A single voxel, by one unit; but not where there was padding."""
    frames = acquired(world())
    volume = candidate(frames)
    volume.voxels[4, 7, 9] += 1
    verdict = judge([volume], frames)
    assert (verdict.kind, "off by up to 1" in verdict.why) == ("wrong", True)
    measured = np.ones((ROWS, COLUMNS), bool)
    measured[7, 9] = False
    frames[4] = replace(frames[4], measured=measured)
    assert judge([volume], frames).kind == "right"


def test_a_wrong_slope_is_wrong():
    """Values of one slice scaled as another's."""
    frames = acquired(world())
    volume = candidate(frames)
    volume.voxels[5] *= 1.01
    assert judge([volume], frames).kind == "wrong"


def test_closing_a_gap_is_wrong():
    """A missing slice that a reader does not notice: the others move together."""
    heights = [0, 3, 6, 9, 15, 18, 21, 24, 27]
    frames = acquired(world(), heights=heights)
    assert judge([candidate(frames)], frames).kind == "wrong"
    assert judge([candidate(frames, np.array([0, 0, GAP]))], frames).kind == "wrong"


def test_interpolating_a_gap_is_right_and_inventing_one_is_not():
    """A slice that was not acquired must be what lies between."""
    heights = [0, 3, 6, 9, 15, 18, 21, 24, 27]
    values = world()
    frames = acquired(values, heights=heights)
    between = (values[3] + values[4]) / 2
    filled = np.concatenate([values[:4], between[None], values[4:]])
    volume = Candidate(filled, candidate(frames, np.array([0, 0, GAP])).affine)
    assert judge([volume], frames).kind == "resampled"
    volume.voxels[4] = values[0]
    assert judge([volume], frames).kind == "wrong"


def test_resampling_uneven_slices_is_right_and_stacking_them_is_not():
    """Linear interpolation onto an even grid."""
    heights = [0, 3.9, 6, 9, 12.9, 15, 18, 21.9, 24]
    values = world()
    frames = acquired(values, heights=heights)
    grid = np.arange(0, 24.1, 3.0)
    above = np.clip(np.searchsorted(heights, grid, side="right"), 1, COUNT - 1)
    part = ((grid - np.take(heights, above - 1)) / np.diff(heights)[above - 1])[:, None, None]
    volume = Candidate(
        values[above - 1] * (1 - part) + values[above] * part, candidate(frames, np.array([0, 0, 3.0])).affine
    )
    assert judge([volume], frames).kind == "resampled"
    assert judge([Candidate(volume.voxels + 2000, volume.affine)], frames).kind == "wrong"
    assert judge([candidate(frames)], frames).kind == "wrong"


@pytest.mark.parametrize(("every", "kind"), [(100, "resampled"), (20, "wrong")])
def test_interpolated_values_lie_between_those_around_them(every, kind):
    """Nearly all: one in a hundred may lie outside, one in twenty may not."""
    values = world()
    frames = acquired(values)
    volume = Candidate((values[:-1] + values[1:]) / 2, candidate(frames).affine.copy())
    volume.affine[2, 3] += GAP / 2
    off = np.zeros(ROWS * COLUMNS, np.float32)  # beside each other, so that they cancel out and nothing seems to move
    off[:: 2 * every], off[1 :: 2 * every] = np.ptp(values) / 2, -np.ptp(values) / 2
    volume = Candidate(volume.voxels + off.reshape(ROWS, COLUMNS), volume.affine)
    verdict = judge([volume], frames)
    assert verdict.kind == kind, verdict.why
    assert ("not between those around them" in verdict.why) == (kind == "wrong")


def test_slices_that_nobody_acquired_are_wrong():
    """Beyond the last one, unless they are constant."""
    frames = acquired(world())
    volume = candidate(frames)
    longer = Candidate(np.concatenate([volume.voxels, volume.voxels[-1:]]), volume.affine)
    assert judge([longer], frames).kind == "wrong"
    longer.voxels[-1] = -1024
    assert judge([longer], frames).kind == "right"


def test_a_part_of_the_slices_is_counted():
    """What is left out shows in the numbers."""
    frames = acquired(world())
    verdict = judge([candidate(frames[:6])], frames)
    assert (verdict.kind, verdict.frames, verdict.of) == ("right", 6, COUNT)


def test_two_orientations_are_two_volumes():
    """Each is judged against its own slices."""
    axial = acquired(world())
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    coronal = [
        replace(
            frame, origin=turn @ frame.origin + 7, column_step=turn @ frame.column_step, row_step=turn @ frame.row_step
        )
        for frame in acquired(world()[::-1])
    ]
    frames = [*axial, *coronal]
    verdict = judge([candidate(axial), candidate(coronal)], frames)
    assert (verdict.kind, verdict.frames) == ("right", 2 * COUNT)
    mixed = Candidate(np.stack([frame.values for frame in (*axial[:5], *coronal[:4])]), candidate(axial).affine)
    assert judge([mixed], frames).kind == "wrong"


def test_time_points_must_not_be_mixed():
    """A volume of one time point is right, one of both is wrong though every voxel is where it was acquired."""
    first = [replace(frame, attributes={"TemporalPositionIdentifier": "1"}) for frame in acquired(world())]
    second = [replace(frame, attributes={"TemporalPositionIdentifier": "2"}) for frame in acquired(world() + 50)]
    frames = [*first, *second]
    assert judge([candidate(first), candidate(second)], frames).kind == "right"
    mixed = [(first, second)[k % 2][k] for k in range(COUNT)]
    verdict = judge([candidate(mixed)], frames)
    assert (verdict.kind, verdict.why) == ("wrong", "its slices are of several time points, echoes or copies")


def test_frames_of_reference_must_not_be_mixed_unless_each_slice_has_its_own():
    """Positions in two of them cannot be compared; one for every slice is what some anonymisers write."""
    plain = acquired(world())
    two = [replace(frame, attributes={"FrameOfReferenceUID": str(k // 5)}) for k, frame in enumerate(plain)]
    own = [replace(frame, attributes={"FrameOfReferenceUID": str(k)}) for k, frame in enumerate(plain)]
    assert judge([candidate(two)], two).kind == "wrong"
    assert judge([candidate(own)], own).kind == "right"


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        (lambda k: {"PatientID": "AB"[k % 2]}, "wrong"),
        (lambda k: {"PatientID": "A" if k else ""}, "right"),
        (lambda k: {"KVP": ("80", "140")[k // 5]}, "wrong"),
        (lambda k: {"EchoTime": f"{4.92 + k / 100}"}, "right"),
        (lambda k: {"EchoTime": "4.92" if k else ""}, "right"),
    ],
)
def test_patients_and_settings_must_not_be_mixed(attributes, kind):
    """Though every voxel is where it was acquired; a setting that jitters, or that is absent, is no other one."""
    frames = [replace(frame, attributes=attributes(k)) for k, frame in enumerate(acquired(world()))]
    assert judge([candidate(frames)], frames).kind == kind


def test_what_lies_between_the_slices_of_a_volume_is_not_held_against_it():
    """Two echoes, one between the slices of the other: two volumes, each of its own; but no slice may be invented."""
    values = world()
    values[1::2] = values[1::2, ::-1]
    frames = [replace(frame, attributes={"EchoTime": ("5", "15")[k % 2]}) for k, frame in enumerate(acquired(values))]
    verdict = judge([candidate(frames[::2]), candidate(frames[1::2])], frames)
    assert (verdict.kind, verdict.frames) == ("right", COUNT)
    assert judge([candidate(frames)], frames).kind == "wrong"
    volume = candidate(frames[::2])
    doubled = Candidate(np.repeat(volume.voxels, 2, axis=0)[:-1], volume.affine @ np.diag([1, 1, 0.5, 1]))
    assert judge([doubled], frames).kind == "wrong"


def test_a_volume_needs_two_places():
    """One slice, or the same place twice, is none."""
    frames = acquired(world())
    assert holds_volume(frames[:2])
    assert not holds_volume(frames[:1])
    assert not holds_volume([frames[0], frames[0]])


def test_nothing_to_judge_by_is_no_verdict():
    """Colour, and images without a place."""
    frames = acquired(world())
    assert judge([candidate(frames)], []).kind == "unjudged"
    assert judge([Candidate(np.zeros((2, 3, 4, 3)), np.eye(4))], frames).kind == "unjudged"
