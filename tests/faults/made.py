"""The objects of a run: tiny series under UIDs of their own, a NIfTI file, and one that must be rejected."""

from __future__ import annotations

import io
import tempfile
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pydicom

from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series

if TYPE_CHECKING:
    from random import Random

SERIES = 2
SLICES = 12
HEIGHT_MM = 312.0


@dataclass(slots=True)
class MadeSeries:
    """A DICOM series: its UID, and its objects by key, from the feet to the head."""

    uid: str
    objects: dict[str, bytes]

    def overwritten(self) -> dict[str, bytes]:
        """The same instances with other pixels."""
        return {key: body[:-2] + bytes([body[-2] ^ 1, body[-1]]) for key, body in self.objects.items()}


@dataclass(slots=True)
class Work:
    """What one run puts into the inbox. `prefix` begins every key."""

    prefix: str
    series: list[MadeSeries] = field(default_factory=list)
    others: dict[str, bytes] = field(default_factory=dict)

    def objects(self) -> dict[str, bytes]:
        """All objects by their keys."""
        return {
            key: body for part in (*(one.objects for one in self.series), self.others) for key, body in part.items()
        }


def _plan(slices: int) -> PhantomPlan:
    return PhantomPlan(seed=7, rows=48, columns=48, slices=slices, pixel_mm=8.0, slice_mm=HEIGHT_MM / slices)


@cache
def _phantom(slices: int) -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory(prefix="voxelmill-faults-") as folder:
        return tuple(path.read_bytes() for path in write_series(Path(folder), make_phantom(_plan(slices))))


@cache
def _volume() -> tuple[np.ndarray, np.ndarray]:
    phantom = make_phantom(_plan(SLICES))
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return phantom.voxels.transpose(2, 1, 0), lps_to_ras @ phantom.affine


def _uid(random: Random) -> str:
    return f"2.25.{uuid.UUID(int=random.getrandbits(128), version=4).int}"


def make_series(random: Random, prefix: str, number: int, slices: int) -> MadeSeries:
    """Make a CT series of so many slices of 48 x 48."""
    study, series = _uid(random), _uid(random)
    objects = {}
    for index, body in enumerate(_phantom(slices)):
        image = pydicom.dcmread(io.BytesIO(body))
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = _uid(random)
        written = io.BytesIO()
        image.save_as(written, enforce_file_format=True)
        objects[f"{prefix}/ct{number}/{index:03d}.dcm"] = written.getvalue()
    return MadeSeries(series, objects)


def make_nifti(random: Random) -> bytes:
    """Make a NIfTI file with the same anatomy, and voxels that no other file has."""
    voxels, affine = _volume()
    voxels = voxels.copy()
    for place in random.sample(range(voxels.size), 8):
        voxels.flat[place] += 1
    return nibabel.Nifti1Image(voxels, affine).to_bytes()


def make_work(random: Random, prefix: str, series: int = SERIES, slices: int = SLICES) -> Work:
    """Make a run's objects."""
    return Work(
        prefix,
        [make_series(random, prefix, number, slices) for number in range(series)],
        {
            f"{prefix}/volume.nii": make_nifti(random),
            f"{prefix}/no image.dcm": b"not DICOM " + random.randbytes(40).hex().encode(),
        },
    )
