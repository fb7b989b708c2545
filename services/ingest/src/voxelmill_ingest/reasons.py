"""Why ingest does not take an object: the documented catalogue. The table in this service's README is made from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from voxelmill_shared.events import Severity


class Reason(StrEnum):
    """One word for each way in which an object is not taken, with its severity and one line that explains it."""

    severity: Severity
    explanation: str

    def __new__(cls, word: str, severity: Severity, explanation: str) -> Self:
        """Make a member that is its word and carries the rest."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.severity = severity
        member.explanation = explanation
        return member

    EMPTY_OBJECT = ("empty-object", Severity.REJECT, "The object has no bytes.")
    NOT_DICOM = (
        "not-dicom",
        Severity.REJECT,
        "The bytes are neither DICOM, NIfTI nor an archive, though the name does not say that they are something else.",
    )
    OTHER_FILE = (
        "other-file",
        Severity.SKIP,
        "By its name and its bytes a file of another kind: text, JSON, PDF, a picture.",
    )
    JUNK = ("junk", Severity.SKIP, "What operating systems leave in folders and archives: `.DS_Store`, `__MACOSX/`.")
    UNSAFE_KEY = (
        "unsafe-key",
        Severity.REJECT,
        "It may not be read: a link out of the inbox, a pipe, a socket, a device, or a key that is too long or unsafe.",
    )
    INVALID_HEADER = (
        "invalid-header",
        Severity.REJECT,
        "The header breaks the encoding rules (PS3.5), or a value that is needed is not of its type.",
    )
    TRUNCATED = (
        "truncated",
        Severity.REJECT,
        "The object ends too early: inside an element, or with fewer pixel bytes than rows, columns and frames need.",
    )
    MISSING_STUDY_INSTANCE_UID = ("missing-study-instance-uid", Severity.REJECT, "No Study Instance UID (0020,000D).")
    MISSING_SERIES_INSTANCE_UID = (
        "missing-series-instance-uid",
        Severity.REJECT,
        "No Series Instance UID (0020,000E).",
    )
    MISSING_SOP_INSTANCE_UID = ("missing-sop-instance-uid", Severity.REJECT, "No SOP Instance UID (0008,0018).")
    MISSING_SOP_CLASS_UID = ("missing-sop-class-uid", Severity.REJECT, "No SOP Class UID (0008,0016).")
    INVALID_UID = (
        "invalid-uid",
        Severity.REJECT,
        "A UID is longer than 64 characters or holds more than digits between dots (PS3.5 9.1).",
    )
    UNSUPPORTED_TRANSFER_SYNTAX = (
        "unsupported-transfer-syntax",
        Severity.REJECT,
        "The pixels are encoded in a way that is not read here: video, a retired JPEG process, a private syntax.",
    )
    NO_PIXEL_DATA = ("no-pixel-data", Severity.REJECT, "An image without pixels, rows or columns.")
    IMPLAUSIBLE_SIZE = (
        "implausible-size",
        Severity.REJECT,
        "Rows, columns and frames ask for more memory than any image of this pipeline does.",
    )
    NOT_AN_IMAGE = (
        "not-an-image",
        Severity.SKIP,
        "Sound DICOM of another kind: SR, RT object, presentation state, waveform, segmentation, parametric map, …",
    )
    LOCALIZER = (
        "localizer",
        Severity.SKIP,
        "A scout view (Image Type value 3 is LOCALIZER): no part of the volume (PS3.3 C.8.2.1.1.1).",
    )
    DICOMDIR = ("dicomdir", Severity.SKIP, "The directory of a medium (PS3.3 F), no image.")
    CONFLICTING_INSTANCE = (
        "conflicting-instance",
        Severity.REJECT,
        "Another object, put earlier and still there, has the same SOP Instance UID and other content.",
    )
    SERIES_IN_TWO_STUDIES = (
        "series-in-two-studies",
        Severity.REJECT,
        "The series is already known as part of another study.",
    )
    NIFTI_CORRUPT = ("nifti-corrupt", Severity.REJECT, "The NIfTI header contradicts itself, or the voxels are cut.")
    NIFTI_NOT_A_VOLUME = (
        "nifti-not-a-volume",
        Severity.SKIP,
        "Sound NIfTI, but no three-dimensional scalar volume: a time series, a plane, colours, a header alone.",
    )
    ARCHIVE_CORRUPT = ("archive-corrupt", Severity.REJECT, "The zip or tar cannot be read to its end.")
    ARCHIVE_ENCRYPTED = ("archive-encrypted", Severity.REJECT, "A member needs a password.")
    ARCHIVE_TOO_LARGE = (
        "archive-too-large",
        Severity.REJECT,
        "Unpacked, the archive has more members or bytes than allowed, or it is packed so tightly that it is a bomb.",
    )
    ARCHIVE_NESTED_TOO_DEEP = (
        "archive-nested-too-deep",
        Severity.REJECT,
        "An archive inside an archive: send it by itself.",
    )
    ARCHIVE_UNSAFE_MEMBER = (
        "archive-unsafe-member",
        Severity.REJECT,
        "A member that would leave its folder, is a link or a device, or has a name that cannot be kept.",
    )


def table() -> str:
    """Return the catalogue as a Markdown table."""
    rows = [f"| `{reason}` | {reason.severity} | {reason.explanation} |" for reason in Reason]
    return "\n".join(["| reason | severity | meaning |", "|---|---|---|", *rows])
