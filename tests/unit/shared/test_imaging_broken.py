"""Damaged files: whatever is wrong in them, the answer is `UnsupportedSeriesError` with one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pydicom.uid import RLELossless

from unit.shared.imaging_files import along_z, image, numbered, save, write_series
from voxelmill_shared.imaging import Unsupported, open_image, read_frames, read_nifti, read_series
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except UnsupportedSeriesError as error:
        refusal = error
    else:
        return "read"
    assert refusal.code in set(Unsupported)
    assert "\n" not in refusal.reason
    return refusal.code


def test_broken_rle_segments_are_undecodable(tmp_path: Path) -> None:
    """A run that goes beyond its segment makes the decoder panic; one bad file, not the end of the process."""
    dataset = image(np.random.default_rng(8).integers(0, 4096, (32, 32)).astype(np.uint16))
    dataset.compress(RLELossless, generate_instance_uid=False)
    path = save(dataset, tmp_path / "rle.dcm")
    whole = path.read_bytes()
    start = whole.index((2).to_bytes(4, "little") + (64).to_bytes(4, "little"))  # two segments, the first at 64
    outcomes = set()
    for place in (4, 8, 64, 65, 300):
        damaged = bytearray(whole)
        damaged[start + place : start + place + 8] = b"\x7f\x04\x00\x00\x7f\x7f\x7f\x7f"
        path.write_bytes(damaged)
        outcomes.add(outcome(lambda: read_frames(path)))
    assert outcomes <= {"read", "undecodable-pixels"}
    assert "undecodable-pixels" in outcomes


def test_values_of_impossible_length_are_an_unreadable_header(tmp_path: Path) -> None:
    """Rows of 3 bytes; a Modality whose value representation does not exist."""
    path = save(image(np.zeros((4, 4), np.int16)), tmp_path / "a.dcm")
    whole = path.read_bytes()
    rows = whole.index(b"\x28\x00\x10\x00US\x02\x00")
    path.write_bytes(whole[: rows + 6] + b"\x03\x00\x04\x00\x00" + whole[rows + 10 :])
    assert outcome(lambda: open_image(path)) == "unreadable-header"
    paths = write_series(tmp_path, numbered(2), along_z(2))
    paths[0].write_bytes(paths[0].read_bytes().replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00U\xff"))
    assert outcome(lambda: read_series(paths)) == "unreadable-header"


def test_a_header_cut_inside_a_sequence_is_unreadable(tmp_path: Path) -> None:
    """The file ends within an item of a sequence that says it is longer."""
    path = tmp_path / "a.dcm"
    sequence = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00"
    path.write_bytes(save(image(np.zeros((4, 4), np.int16)), path).read_bytes()[:400] + sequence)
    assert outcome(lambda: open_image(path)) in {"unreadable-header", "not-an-image"}


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "transfer_syntaxes/emri_small_RLE.dcm",
        "transfer_syntaxes/CT_small.dcm",
        "transfer_syntaxes/examples_palette.dcm",
        "transfer_syntaxes/image_dfl.dcm",
        "transfer_syntaxes/MR_small_bigendian.dcm",
        "enhanced/siemens_vida_agfa/011-0001.img",
        "color_mono1_lut/vlut_04.dcm",
        "nifti/nibabel/anatomical.nii",
        "nifti/totalseg/example_mr_sm.nii.gz",
    ],
)
def test_random_damage_never_gives_another_error(data: Path, tmp_path: Path, name: str) -> None:
    """Bytes flipped and files cut at random places (the same in every run)."""
    whole = (data / name).read_bytes()
    random = np.random.default_rng(sum(name.encode()))
    path = tmp_path / "damaged"
    outcomes = set()
    for _ in range(25):
        damaged = bytearray(whole)
        for place in random.integers(0, random.choice([600, 3000, len(whole)]), random.integers(1, 12)):
            damaged[place] = random.integers(0, 256)
        cut = int(random.integers(0, len(whole))) if random.random() < 0.2 else len(whole)
        path.write_bytes(damaged[:cut])
        if ".nii" in name:
            outcomes.add(outcome(lambda: read_nifti(path)))
        else:
            outcomes.add(outcome(lambda: read_frames(path)))
            outcomes.add(outcome(lambda: read_series([path])))
    assert outcomes - {"read"}
