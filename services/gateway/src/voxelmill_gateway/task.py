"""What the gateway asks its children for, without the libraries that they need: asking is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

BULK: Final = "urn:voxelmill:1f0c5ed8a7d24c6f9a6d0a1c3bb3d1f2"
"""Stands in metadata for the address of the instance's bulk data, which each answer puts in its place."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an instance once its header has been read.

    Attributes
    ----------
    metadata
        The DICOM JSON object, UTF-8, with `BULK` for the address of bulk data.
    frames
        How many there are.
    compressed
        Whether each is a codestream.
    offset
        Where in the file the first frame's bytes begin, if they lie there as they are to be given; else None.
    frame_bytes
        The size of a frame that is not compressed.
    """

    metadata: bytes
    frames: int
    compressed: bool
    offset: int | None
    frame_bytes: int


@dataclass(frozen=True, slots=True)
class ReadHeaders:
    """Read headers; the answer has a `Header` for each, or None where more bytes are needed, or why there is none.

    `sources` are the first bytes of each file, or the file; `sizes` are the files'.
    """

    sources: tuple[bytes | Path, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadFrames:
    """Give frames, numbered from 0: as they are stored, or decoded to what Explicit VR Little Endian holds."""

    path: Path
    frames: tuple[int, ...]
    decode: bool


@dataclass(frozen=True, slots=True)
class ReadBulk:
    """Give the value of one element by its path; None if there is none."""

    path: Path
    element: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transcode:
    """Write an object in Explicit VR Little Endian to `output`."""

    path: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Viewport:
    """The size of a picture, and which part of the image it shows (PS3.18 8.3.5.1.3), in pixels.

    Zero for a size of the source: to the image's edge. Negative sizes flip.
    """

    width: int
    height: int
    source: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw a frame as a picture: `media_type` is `image/jpeg`, `image/png` or `image/webp`.

    `frame` is from 0, or None for the middle one. `window` is centre, width and function (PS3.3 C.11.2.1.3).
    """

    path: Path
    frame: int | None
    media_type: str
    quality: int = 90
    window: tuple[float, float, str] | None = None
    viewport: Viewport | None = None


@dataclass(frozen=True, slots=True)
class BuildVolume:
    """Write a series' volume as NIfTI: a preview, then all of it.

    Attributes
    ----------
    paths
        The files, in the order of the manifest.
    nifti
        Whether the series is a NIfTI file and no DICOM.
    label_map
        The label map of the job, if there is one: of several volumes the one that it lies in is taken.
    preview, full
        The files to write.
    """

    paths: tuple[Path, ...]
    nifti: bool
    label_map: Path | None
    preview: Path
    full: Path


Request = ReadHeaders | ReadFrames | ReadBulk | Transcode | Draw | BuildVolume
