"""What names an instance, read from the beginning of its file. Nothing else of the header is decoded, and no pixels."""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from voxelmill_shared.imaging.image import HEADER_ERRORS
from voxelmill_shared.imaging.walker import walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom import Dataset
    from pydicom.tag import BaseTag

HEAD_BYTES: Final = 1 << 20
"""How much of a file is looked at: the UIDs of study and series stand before any pixel (PS3.5 7.1)."""
_QUICKLY: Final = 64 << 10
"""How much of it the quick reader is given: 95 in 100 headers take less than 7 KiB."""
_REFEREED: Final = 256 << 10
"""How much of it, or of what is inflated of it, pydicom is given."""
_LAST_TAG: Final = 0x0020000E
_KEYWORDS: Final = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_UID: Final = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*\Z")

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it says of values may name people, and goes in no log


@dataclass(frozen=True, slots=True)
class Identity:
    """The four UIDs of an instance. One that is missing, or is no UID (PS3.5 9.1), is empty."""

    sop_class: str = ""
    sop_instance: str = ""
    study: str = ""
    series: str = ""

    @property
    def whole(self) -> bool:
        """Whether all four are there."""
        return bool(self.sop_class and self.sop_instance and self.study and self.series)


def read_identity(head: bytes) -> Identity:
    """Read the UIDs of a DICOM file (PS3.10 7), or of a data set without its head.

    Parameters
    ----------
    head
        The file, or its first `HEAD_BYTES`.
    """
    walked = walk(head[:_QUICKLY])
    if walked is not None:
        values = {name: value.decode("latin-1") for name, value in walked.elements.items() if name in _WANTED}
        found = _identity(values)
        if found.whole:
            return found
    return _identity(_by_pydicom(head))


_WANTED: Final = frozenset(_KEYWORDS.values())


def _identity(values: Mapping[str, str]) -> Identity:
    uids = {name: values.get(name, "").strip("\0 ") for name in _WANTED}
    valid = {name: uid if _UID.match(uid) else "" for name, uid in uids.items()}
    return Identity(
        valid["SOPClassUID"], valid["SOPInstanceUID"], valid["StudyInstanceUID"], valid["SeriesInstanceUID"]
    )


def _by_pydicom(head: bytes) -> dict[str, str]:
    """Read a header that is unusual, or broken; nothing is found in one that pydicom cannot read either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _values(_data_set(head[:_REFEREED]))
    except HEADER_ERRORS:
        return {}


def _data_set(head: bytes) -> Dataset:
    if DeflatedExplicitVRLittleEndian.encode() not in head[:_QUICKLY]:
        return read_partial(BytesIO(head), stop_when=_is_enough, force=True, specific_tags=list(_KEYWORDS))
    # pydicom would inflate all of it at once, whatever that comes to (PS3.5 A.5).
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("no file meta information")
    begin = 144 + struct.unpack_from("<L", head, 140)[0]
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[begin:], _REFEREED)
    return read_dataset(
        BytesIO(inflated),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=_is_enough,
        specific_tags=list(_KEYWORDS),
    )


def _values(data_set: Dataset) -> dict[str, str]:
    found = {}
    for tag, keyword in _KEYWORDS.items():
        value = data_set.get(tag)
        if value is not None:
            found[keyword] = str(value.value or "")
    return found


def _is_enough(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_TAG
