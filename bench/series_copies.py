"""Copies of a series under new UIDs, as many as a benchmark wants, from one series that lies here once.

A template is a written DICOM object in which every UID that is to change has the longest text that a UID can have, so a
copy is the template with other bytes at known places: nothing is parsed or written anew, and the making of copies costs
a client no more than copying memory.
"""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import pydicom
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import FileDataset

CHEST = "ct_chest_lidc0314_2mm_j2k"
_UID_LENGTH = 44
"""Of `2.25.` with 39 digits (PS3.5 B.2), which is even, so that no value needs a byte more (PS3.5 9.1)."""
_JPEG_2000 = "1.2.840.10008.1.2.4.90"


def new_uid(*parts: object) -> str:
    """Return a UID of always the same length that the same parts always give."""
    number = uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))).int
    return f"2.25.{number % 2 * 10**38 + 10**38 + number % 10**38:039d}"


@dataclass(frozen=True, slots=True)
class Template:
    """One instance, to be copied. `places` are the offsets of each UID that is replaced."""

    body: bytes
    places: dict[str, tuple[int, ...]]

    def copy(self, study: str, series: str, instance: str) -> bytes:
        """Return the object under other UIDs, each made by `new_uid`."""
        body = bytearray(self.body)
        for what, uid in (("study", study), ("series", series), ("instance", instance)):
            for place in self.places[what]:
                body[place : place + _UID_LENGTH] = uid.encode()
        return bytes(body)


def series_folder() -> Path | None:
    """Return the folder of the test data's chest CT, or none where there is no test data."""
    data = Path(os.environ.get("VOXELMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = data / CHEST
    return folder if folder.is_dir() else None


def templates(folder: Path, most: int | None = None, *, compressed: bool = False) -> list[Template]:
    """Read the instances of one series as templates, in the order of their positions from below.

    Parameters
    ----------
    folder
        Holds the instances of an axial series and nothing else.
    most
        How many are taken, in even steps through the whole series, which so has no gaps; all if None.
    compressed
        Whether JPEG 2000 pixels stay as they are. If not, every object is Explicit VR Little Endian.
    """
    images = [pydicom.dcmread(path, defer_size=1 << 16) for path in folder.iterdir() if path.is_file()]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    if most is not None:
        images = images[:: max(len(images) // most, 1)][:most]
    return [_template(image, compressed=compressed) for image in images]


def _template(image: FileDataset, *, compressed: bool) -> Template:
    meta = image.file_meta
    if meta.TransferSyntaxUID == _JPEG_2000 and not compressed:
        frame = next(generate_frames(image.PixelData, number_of_frames=1))
        image.PixelData = imagecodecs.jpeg2k_decode(frame).tobytes()
        image["PixelData"].VR = "OW"
        image["PixelData"].is_undefined_length = False
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stand_ins = {what: new_uid("stand-in", what) for what in ("study", "series", "instance")}
    image.StudyInstanceUID = stand_ins["study"]
    image.SeriesInstanceUID = stand_ins["series"]
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = stand_ins["instance"]
    written = io.BytesIO()
    image.save_as(written, enforce_file_format=True)
    body = written.getvalue()
    return Template(body, {what: _places(body, uid.encode()) for what, uid in stand_ins.items()})


def retouched(original: Template, **values: object) -> Template:
    """Return a template with other values of some elements, by keyword."""
    image = pydicom.dcmread(io.BytesIO(original.body))
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return _template(image, compressed=True)


def _places(body: bytes, text: bytes) -> tuple[int, ...]:
    found, place = [], body.find(text)
    while place >= 0:
        found.append(place)
        place = body.find(text, place + 1)
    return tuple(found)


def copies_of(originals: Sequence[Template], name: str) -> list[bytes]:
    """Return all instances of one copy of a series. `name` gives its UIDs."""
    study, series = new_uid(name, "study"), new_uid(name, "series")
    return [original.copy(study, series, new_uid(name, number)) for number, original in enumerate(originals)]
