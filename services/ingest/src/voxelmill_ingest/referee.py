"""pydicom's reading of a header that our own walker cannot follow.

The walker is fast because it follows the rules; some objects break them in ways that pydicom has learnt to live with.
Importing this module imports pydicom, which costs 100 ms and 20 MB: it is done where an object asks for it.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.errors import InvalidDicomError as NotDicomError
from pydicom.multival import MultiValue

from voxelmill_ingest import elements
from voxelmill_ingest.elements import Elements, InvalidDicomError, Walker

if TYPE_CHECKING:
    from pydicom import Dataset

    from voxelmill_ingest.elements import Wanted
    from voxelmill_ingest.ranges import Reading, Window

MOST_REFEREED: Final = 256 << 10
"""Bytes of a header that pydicom is given: it reads all of it at once, and this process has other things to do."""
_DEFLATED: Final = elements.DEFLATED.encode()
_BROKEN: Final = (
    BytesLengthException,
    NotDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are broken in one way or another, read from memory."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it says of values may name people, and goes in no log


def second_opinion(window: Window, wanted: Wanted) -> Reading[Elements | None]:
    """Read a header with pydicom; none if it does not come to the pixels either.

    Parameters
    ----------
    window
        The object, from its beginning.
    wanted
        Which values are to be kept.
    """
    size = min(window.size, MOST_REFEREED)
    if not (yield from window.need(size)):
        return None
    data = window.data[:size]
    if _DEFLATED in data:
        return None  # pydicom would inflate all of it at once, whatever that comes to
    head = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(head, stop_before_pixels=True, force=True)
        found = _translated(dataset, wanted)
    except _BROKEN:
        return None
    end = window.position = head.tell()
    explicit = not dataset.original_encoding[0]
    walker = Walker(window, found, wanted, explicit=explicit, order=">" if found.big_endian else "<")
    try:
        yield from walker.run()
    except InvalidDicomError:
        return None
    # Where pydicom gives up in the middle it says nothing, and forgets what it has read.
    return found if found.pixels and found.pixels.offset in {end + 8, end + 12} else None


def _translated(dataset: Dataset, wanted: Wanted) -> Elements:
    """Return what pydicom has read of the wanted elements, as the walker would: values are not decoded."""
    found = Elements()
    for part in (dataset.file_meta, dataset):
        for tag in part.keys() & wanted.vrs.keys():
            element = part.get_item(tag)
            vr = (element.VR or "").encode()
            if isinstance(element, RawDataElement):
                value = element.value or b""
            elif vr == b"SQ":
                found.unread[int(tag)] = elements.UNDEFINED
                continue
            else:
                # Some values are decoded, whatever is asked for: what is empty, or needed to understand others.
                decoded = element.value if isinstance(element.value, MultiValue) else [element.value]
                value = "\\".join("" if one is None else str(one) for one in decoded).encode()
                vr = b"LO" if value and vr == b"US" else vr
            if len(value) > elements.LONGEST_VALUE:
                found.unread[int(tag)] = len(value)
                continue
            found.values[int(tag)] = value
            if vr and vr != wanted.vrs[tag]:
                found.vrs[int(tag)] = vr
    implicit, little = dataset.original_encoding
    syntax = elements.IMPLICIT_LITTLE if implicit else elements.EXPLICIT_LITTLE if little else elements.EXPLICIT_BIG
    declared = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    found.transfer_syntax_uid = declared or syntax
    found.assumed_syntax = not declared
    found.big_endian = not little
    return found
