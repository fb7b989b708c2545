"""From the beginning of a DICOM file to its metadata and the place of its pixels. Runs in a child process."""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any, Final

from pydicom.filereader import read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from voxelmill_gateway.dicomweb.json_model import Json, bulk_bytes, to_json
from voxelmill_gateway.task import BULK, Header
from voxelmill_shared.imaging.image import HEADER_ERRORS, opened
from voxelmill_shared.imaging.opening import read_with_pydicom
from voxelmill_shared.imaging.reasons import Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.tag import BaseTag

_PIXELS: Final = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
_UNDEFINED: Final = 0xFFFFFFFF
_META_BYTES: Final = 2048
"""How much of a file is looked at for the transfer syntax of a deflated data set, which is inflated with care."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it says of values may name people, and goes in no log


def read_header(source: bytes | Path, size: int) -> Header | None:
    """Read the header of a DICOM file.

    Parameters
    ----------
    source
        Its first bytes, or the file.
    size
        Of the file, in bytes.

    Returns
    -------
    Header or None
        None if the bytes end before the header does: more are needed.

    Raises
    ------
    UnsupportedSeriesError
        If it cannot be read, although all of it is there.
    """
    whole = not isinstance(source, bytes) or len(source) >= size
    with warnings.catch_warnings(action="ignore"):
        found: list[tuple[int, str | None, int]] = []

        def is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
            if tag in _PIXELS and length:
                found.append((int(tag), vr, length))
            return tag in _PIXELS

        try:
            with opened(source) as file:
                if DeflatedExplicitVRLittleEndian.encode() in file.read(_META_BYTES):
                    return _deflated(source) if whole else None
                file.seek(0)
                dataset = read_partial(file, is_pixels, force=True)
                place = file.tell()
            if not found and not whole:
                return None
            return _described(dataset, found[0] if found else None, place)
        except HEADER_ERRORS as error:
            if not whole:
                return None
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Unsupported.UNREADABLE_HEADER.error(f"the header cannot be read ({type(error).__name__})") from None


def _deflated(source: bytes | Path) -> Header:
    """Read a data set that is deflated as a whole (PS3.5 A.5): its pixels have no place in the file."""
    image = read_with_pydicom(source, "the object")
    metadata = to_json(image.header, _place)
    metadata["7FE00010"] = {"vr": "OW", "BulkDataURI": _place(("7FE00010",))}
    return Header(_written(metadata), frames=image.frames, compressed=False, offset=None, frame_bytes=image.frame_bytes)


def _described(dataset: Dataset, pixels: tuple[int, str | None, int] | None, place: int) -> Header:
    metadata = to_json(dataset, _place)
    frames = max(1, _number(dataset, "NumberOfFrames", 1))
    if pixels is None:
        return Header(_written(metadata), frames=frames, compressed=False, offset=None, frame_bytes=0)
    tag, vr, length = pixels
    name = f"{tag:08X}"
    metadata[name] = {"vr": vr or _PIXELS[tag], "BulkDataURI": _place((name,))}
    compressed = length == _UNDEFINED
    bits = _number(dataset, "BitsAllocated", 16)
    frame_bytes = _frame_bytes(dataset, bits)
    plain = (
        not compressed
        and tag == 0x7FE00010
        and bits % 8 == 0
        and dataset.original_encoding[1] is not False
        and 0 < frame_bytes * frames <= length
    )
    head = 12 if vr in {"OB", "OW", "UN", "OF", "OD"} else 8
    return Header(
        _written(metadata),
        frames=frames,
        compressed=compressed,
        offset=place + head if plain else None,
        frame_bytes=frame_bytes,
    )


def _frame_bytes(dataset: Dataset, bits: int) -> int:
    """Return the bytes of a frame that is not compressed (PS3.5 8.2), rounded up."""
    samples = _number(dataset, "SamplesPerPixel", 1)
    if str(dataset.get("PhotometricInterpretation") or "") in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
        samples = 2  # two pixels share their chrominance (PS3.3 C.7.6.3.1.2)
    return (_number(dataset, "Rows", 0) * _number(dataset, "Columns", 0) * samples * bits + 7) // 8


def _number(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value in (None, "") else int(value)


def _place(path: Sequence[str]) -> str:
    return f"{BULK}/{'/'.join(path)}"


def _written(metadata: Json) -> bytes:
    ordered: dict[str, Any] = dict(sorted(metadata.items()))
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def bulk_value(source: Path, path: Sequence[str]) -> bytes | None:
    """Return the value of one element, in little-endian words, or None if there is none.

    Parameters
    ----------
    source
        The file.
    path
        As in a `BulkDataURI`: tags, with the number of the item behind each sequence.
    """
    with warnings.catch_warnings(action="ignore"):
        image = read_with_pydicom(source, "the object")
        try:
            return bulk_bytes(image.header, path)
        except HEADER_ERRORS:
            return None
