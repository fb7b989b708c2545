"""Series whose slices do not fit together, or whose files say what cannot be: refused or divided, never a wrong volume."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEGLosslessSV1, RLELossless

from unit.shared.imaging_files import along_z, image, numbered, save, write_series
from voxelmill_shared.imaging import read_series, read_volumes
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

COUNT = 8


def write(folder: Path, positions: Sequence[Any], elements: Callable[[int], dict[str, Any]]) -> list[Path]:
    """Write slices that are numbered in the hundreds, each with elements of its own."""
    paths = []
    for k, position in enumerate(positions):
        stored = np.arange(20, dtype=np.int16).reshape(4, 5) + np.int16(100 * k)
        dataset = image(stored, **{"ImagePositionPatient": list(position), "RescaleIntercept": 0, **elements(k)})
        paths.append(save(dataset, folder / f"{(k * 7 + 3) % 101:03d}-{k}.dcm"))
    return paths


def numbers(paths: list[Path]) -> list[list[int]]:
    """Return which slices each volume holds, in its order."""
    return [(volume.voxels[:, 0, 0] // 100).tolist() for volume in read_volumes(paths).volumes]


def refused(paths: Sequence[Path | bytes]) -> tuple[str, str]:
    with pytest.raises(UnsupportedSeriesError) as error:
        read_volumes(paths)
    return error.value.code, error.value.reason


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_slices_of_two_patients_are_never_one_volume(tmp_path: Path, keyword: str) -> None:
    """Not if they lie between each other's, and whose they are is told without a Patient ID."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {keyword: f"1.2.{k % 2}"})
    assert sorted(numbers(paths)) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    volumes = read_volumes(paths).volumes
    assert all(volume.distinction.startswith(("patient", "StudyInstanceUID")) for volume in volumes)
    assert not any("1.2." in volume.distinction for volume in volumes if keyword == "PatientID")
    with pytest.raises(UnsupportedSeriesError) as error:
        read_series(paths)
    assert error.value.code == "mixed-series"


def test_a_slice_without_patient_id_belongs_to_the_only_patient(tmp_path: Path) -> None:
    """An absent ID contradicts nothing, unless there are two others."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {"PatientID": "A" if k else None})
    assert numbers(paths) == [list(range(COUNT))]


@pytest.mark.parametrize(
    "elements",
    [
        lambda own: {"EchoTime": (4.9, 9.8)[own], "Modality": "MR"},
        lambda own: {"DiffusionBValue": (0.0, 800.0)[own], "Modality": "MR"},
        lambda own: {"KVP": (80, 140)[own]},
        lambda own: {"TemporalPositionIdentifier": (20, 21)[own]},
    ],
)
@pytest.mark.parametrize("beside", [lambda k: k % 2, lambda k: k // 4])
def test_a_volume_has_one_setting(tmp_path: Path, elements: Any, beside: Callable[[int], int]) -> None:
    """Slices of another echo, b-value or voltage are another volume, even where they would go on evenly."""
    paths = write(tmp_path, along_z(COUNT), lambda k: elements(beside(k)))
    assert sorted(numbers(paths)) == sorted([k for k in range(COUNT) if beside(k) == own] for own in (0, 1))


def test_settings_that_are_measured_are_one(tmp_path: Path) -> None:
    """An echo time that jitters by hundredths, or is absent somewhere, divides nothing."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {"EchoTime": 4.9 + 0.01 * (k % 3), "KVP": 120 if k else None})
    assert numbers(paths) == [list(range(COUNT))]


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "KVP"])
def test_what_each_slice_has_of_its_own_is_no_setting(tmp_path: Path, keyword: str) -> None:
    """As some write the slice's number where the number of the time point belongs."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {keyword: 10 * k + 10})
    assert numbers(paths) == [list(range(COUNT))]


def test_parts_that_lie_between_each_other_are_no_blocks(tmp_path: Path) -> None:
    """Three images each 0.3 mm apart, every 2 mm: by their kind they are three even volumes, and not eight blocks."""
    positions = [(0, 0, 2.0 * (k // 3) + 0.3 * (k % 3)) for k in range(3 * COUNT)]
    paths = write(tmp_path, positions, lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "ABC"[k % 3]]})
    assert sorted(numbers(paths)) == [list(range(kind, 3 * COUNT, 3)) for kind in range(3)]


@pytest.mark.parametrize("kinds", ["AB", "AAAAAAAB"])
def test_image_types_between_each_other_are_volumes(tmp_path: Path, kinds: str) -> None:
    """Where each makes an even stack; a single slice that says something else stays among the others."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", kinds[k % len(kinds)]]})
    assert len(numbers(paths)) == (2 if kinds == "AB" else 1)


def test_a_slice_may_not_be_off_along_and_aside_at_once(tmp_path: Path) -> None:
    """Each within 0.1 mm, together not: it is resampled along."""
    positions = [(0.08 * (k % 2), 0, 4.0 * k + 0.08 * (k % 2)) for k in range(COUNT + 1)]
    (volume,) = read_volumes(write(tmp_path, positions, lambda _: {})).volumes
    assert any("resampled" in warning for warning in volume.warnings)


def test_one_slice_off_along_and_another_aside_are_an_even_stack(tmp_path: Path) -> None:
    """Each of them lies within 0.1 mm of its place, and has its pixels."""
    positions = [[0, 0, 4.0 * k] for k in range(COUNT + 1)]
    positions[1][2] += 0.08
    positions[2][0] += 0.08
    (volume,) = read_volumes(write(tmp_path, positions, lambda _: {})).volumes
    assert volume.warnings == ()
    assert (volume.voxels[:, 0, 0] // 100).tolist() == list(range(COUNT + 1))


def test_what_lies_on_its_place_is_not_interpolated(tmp_path: Path) -> None:
    """One slice of a stack is 0.3 mm off: its place is filled from those around it. Another is 0.05 mm off, and kept."""
    positions = [[0, 0, 4.0 * k] for k in range(COUNT + 1)]
    positions[3][2] += 0.3
    positions[5][2] += 0.05
    (volume,) = read_volumes(write(tmp_path, positions, lambda _: {})).volumes
    assert any("resampled" in warning for warning in volume.warnings)
    firsts = volume.voxels[:, 0, 0]
    assert 290 < firsts[3] < 300
    assert [first for k, first in enumerate(firsts) if k != 3] == [100 * k for k in range(COUNT + 1) if k != 3]


def test_slices_in_pairs_are_not_resampled(tmp_path: Path) -> None:
    """Two acquisitions that nothing tells apart, one 0.3 mm beside the other, are not one of uneven spacing."""
    positions = [(0, 0, 1.0 * (k // 2) + 0.3 * (k % 2)) for k in range(2 * COUNT)]
    assert refused(write(tmp_path, positions, lambda _: {}))[0] == "uneven-spacing"


def test_slices_off_their_place_are_resampled_or_refused(tmp_path: Path) -> None:
    """By more than 0.1 mm, though that is little of a spacing of 8 mm and of a pixel of 3 mm."""
    for name, step, outcome in (
        ("along", (0, 0, 0.11), ""),
        ("aside", (0.11, 0, 0), "uneven-spacing"),
        ("little", (0.04, 0, 0.04), "even"),
    ):
        (tmp_path / name).mkdir()
        positions = [np.array([0, 0, 8.0 * k]) + np.array(step) * (k % 2) for k in range(COUNT + 1)]
        paths = write(tmp_path / name, [p.round(3).tolist() for p in positions], lambda _: {"PixelSpacing": [3, 3]})
        if outcome == "uneven-spacing":
            assert refused(paths)[0] == outcome
            continue
        (volume,) = read_volumes(paths).volumes
        assert any("resampled" in warning for warning in volume.warnings) == (not outcome)


def test_slices_that_are_nearly_parallel_are_refused(tmp_path: Path) -> None:
    """Where the last pixel is off by more than 0.1 mm; a thousandth of a degree is rounding."""
    for turn, ok in ((2e-5, True), (5e-4, False)):
        folder = tmp_path / str(turn)
        folder.mkdir()
        cosines = ([1, 0, 0, 0, 1, 0], [1, turn, 0, -turn, 1, 0])
        paths = write(
            folder, along_z(COUNT), lambda k, c=cosines: {"ImageOrientationPatient": c[k % 2], "PixelSpacing": [40, 40]}
        )
        if ok:
            assert len(numbers(paths)) == 1
        else:
            assert refused(paths)[0] == "mixed-orientations"


@pytest.mark.parametrize("number", [b"nan ", b"inf ", b"9e99"])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("frames", [b"1 ", b"01"])
def test_a_rescale_that_is_no_number_is_refused(tmp_path: Path, keyword: str, number: bytes, frames: bytes) -> None:
    """By the quick reader and by pydicom (which reads a number of frames of 01), before any voxel is infinite."""
    paths = write_series(tmp_path, numbered(3), along_z(3), NumberOfFrames="77", **{keyword: "1234"})
    files = [path.read_bytes().replace(b"1234", number).replace(b"77", frames) for path in paths]
    code, reason = refused(files)
    assert code == "unreadable-header"
    assert "no sane number" in reason


def test_slices_without_rescale_among_others_are_refused(tmp_path: Path) -> None:
    """Their values would be 1024 off, or not: nobody can say."""
    paths = write(tmp_path, along_z(COUNT), lambda k: {"RescaleSlope": 1, "RescaleIntercept": -1024} if k != 3 else {})
    assert numbers(paths) != []  # a slope of 1 and an intercept of 0 are declared there
    bare = {"RescaleSlope": None, "RescaleIntercept": None}
    paths = write(tmp_path, along_z(COUNT), lambda k: {"RescaleIntercept": -1024} if k != 3 else bare)
    assert refused(paths) == (
        "unreadable-header",
        "1 of 8 slices have no Rescale Slope and Intercept, and the others have",
    )
    paths = write(tmp_path, along_z(COUNT), lambda k: {"RescaleIntercept": 0} if k != 3 else bare)
    assert len(numbers(paths)) == 1  # it makes no difference


def test_a_slope_of_nought_is_told(tmp_path: Path) -> None:
    """It cannot be meant, so 1 is taken, and the receipt says so."""
    (volume,) = read_volumes(write(tmp_path, along_z(COUNT), lambda k: {"RescaleSlope": int(k > 0)})).volumes
    assert volume.warnings == ("the Rescale Slope of 1 slice is 0 and was taken as 1",)


@pytest.mark.parametrize("elements", [{"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, {"Columns": 2}, {"Rows": 3}])
def test_a_header_that_describes_only_part_of_the_pixels_is_refused(tmp_path: Path, elements: dict[str, Any]) -> None:
    """Half of the bytes as all of the image is another image."""
    code, reason = refused(write(tmp_path, along_z(COUNT), lambda _: elements))
    assert code == "unreadable-header"
    assert "there are 40" in reason


def test_a_few_bytes_after_the_pixels_do_not_matter(tmp_path: Path) -> None:
    """Some writers fill up."""
    stored = np.zeros((4, 5), np.int16)
    paths = write(tmp_path, along_z(COUNT), lambda _: {"PixelData": stored.tobytes() + bytes(6)})
    assert len(read_volumes(paths).volumes) == 1


def rle(cells: Any) -> bytes:
    """One byte plane after another, most significant first, as literal runs (PS3.5 G.3)."""
    planes = [(cells >> shift).astype(np.uint8).tobytes() for shift in (8, 0)]
    segments = [bytes([len(plane) - 1]) + plane + bytes(1 - len(plane) % 2) for plane in planes]
    return struct.pack("<16I", 2, 64, 64 + len(segments[0]), *[0] * 13) + b"".join(segments)


def compressed(folder: Path, syntax: str, frame: Callable[[Any], bytes], **elements: Any) -> list[Path]:
    """Write a series of 16 x 16 pixels in a compressed syntax."""
    paths = []
    for k, position in enumerate(along_z(COUNT)):
        stored = (np.arange(256, dtype=np.uint16).reshape(16, 16) * 7 + 100 * k) % 4096
        dataset = image(stored, ImagePositionPatient=list(position), **elements)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame(stored)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        paths.append(save(dataset, folder / f"{k}.dcm"))
    return paths


def test_run_lengths_keep_the_place_of_the_value_in_its_cell(tmp_path: Path) -> None:
    """RLE packs cells as they are, so a High Bit of 15 with 12 bits stored means four bits below the value."""
    stored = np.arange(120, dtype=np.uint16).reshape(10, 12)
    paths = []
    for k, position in enumerate(along_z(3)):
        dataset = image(stored, ImagePositionPatient=list(position), BitsStored=12, HighBit=15, RescaleIntercept=k)
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = encapsulate([rle(stored << 4)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        paths.append(save(dataset, tmp_path / f"{k}.dcm"))
    np.testing.assert_array_equal(read_series(paths).voxels[2], stored + 2)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (HTJ2KLossless, lambda cells: imagecodecs.htj2k_encode(cells, reversible=True)),
        (JPEGLosslessSV1, lambda cells: imagecodecs.ljpeg_encode(cells, bitspersample=16)),
    ],
)
def test_a_codestream_that_was_cut_off_is_refused(tmp_path: Path, syntax: str, encode: Callable[[Any], bytes]) -> None:
    """Their decoders invent what is missing. Whether the file was cut, or what went into it."""
    paths = compressed(tmp_path, syntax, encode)
    assert len(read_volumes(paths).volumes) == 1
    whole = [path.read_bytes() for path in paths]
    for cut in (9, 12, 40):
        assert refused([*whole[:3], whole[3][:-cut], *whole[4:]])[0] == "truncated-pixels"
    assert refused(compressed(tmp_path, syntax, lambda cells: encode(cells)[:-30]))[0] == "truncated-pixels"


@pytest.mark.parametrize("depth", [50, 400, 5000])
def test_sequences_within_sequences_are_a_header_like_any_other(tmp_path: Path, depth: int) -> None:
    """However deep: read, or refused as unreadable."""
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    files = []
    for path in write_series(tmp_path, numbered(3), along_z(3)):
        whole = path.read_bytes()
        place = whole.index(struct.pack("<HH2s", 0x0020, 0x000E, b"UI"))
        files.append(whole[:place] + depth * begin + depth * end + whole[place:])
    try:
        assert len(read_volumes(files).volumes) == 1
    except UnsupportedSeriesError as error:
        assert error.code == "unreadable-header"  # noqa: PT017 - either answer is right, no other error is


def test_a_kernel_of_two_words_is_the_same_by_both_readers(tmp_path: Path) -> None:
    """One slice of a series is left to pydicom, for a look-up table say, and stays in the volume."""
    kernel = {"ConvolutionKernel": ["Br40f", "3"]}
    paths = write(tmp_path, along_z(COUNT), lambda k: kernel | ({"NumberOfFrames": "1.0"} if k == 3 else {}))
    assert numbers(paths) == [list(range(COUNT))]


def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Pixels of floats may be NaN, and a volume has none."""
    paths = []
    for k, position in enumerate(along_z(3)):
        stored = np.full((4, 5), k, np.float32)
        stored[1, 1] = np.nan if k == 1 else 0
        dataset = image(stored, ImagePositionPatient=list(position), PixelData=None, FloatPixelData=stored.tobytes())
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            if keyword in dataset:
                delattr(dataset, keyword)
        paths.append(save(dataset, tmp_path / f"{k}.dcm"))
    assert refused(paths)[0] == "unsupported-values"
