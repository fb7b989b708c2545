"""Why ingest does not take an object: the documented catalogue, of which `docs/validation.md` is made.

A code is part of the interface: it stands in events, receipts, metrics and scripts, so it is never renamed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from voxelmill_shared.events import Severity
from voxelmill_shared.text import shown

__all__ = ["REJECT", "SKIP", "Reason", "RefusedError", "shown"]

REJECT, SKIP = Severity.REJECT, Severity.SKIP


class Reason(StrEnum):
    """One word for each way in which an object is not taken.

    Attributes
    ----------
    severity
        `reject`: broken. `skip`: sound, but no image for this pipeline.
    source
        The part of the Standard that says so, or empty.
    explanation
        One sentence for people.
    advice
        What to do about it.
    """

    severity: Severity
    source: str
    explanation: str
    advice: str

    def __new__(cls, word: str, severity: Severity, source: str, explanation: str, advice: str) -> Self:
        """Make a member that is its word and carries the rest."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.severity, member.source = severity, source
        member.explanation, member.advice = explanation, advice
        return member

    EMPTY_OBJECT = ("empty-object", REJECT, "", "The object has no bytes.", "Send it again.")
    NOT_DICOM = (
        *("not-dicom", REJECT, "PS3.10 7.1"),
        "The bytes are neither DICOM, NIfTI nor an archive, though the name does not say that they are something else.",
        "See what wrote it; send it again if it was damaged on its way.",
    )
    OTHER_FILE = (
        *("other-file", SKIP, ""),
        "By its name or its bytes a file of another kind: text, JSON, PDF, a picture, an office document.",
        "Nothing.",
    )
    JUNK = (
        *("junk", SKIP, ""),
        "What operating systems leave in folders and archives: `.DS_Store`, `__MACOSX/`.",
        "Nothing.",
    )
    UNSAFE_KEY = (
        *("unsafe-key", REJECT, ""),
        "It may not be read: a link out of the inbox, a pipe, a socket, a device, or a key that is too long or unsafe.",
        "Put the file itself under a plain key.",
    )
    INVALID_HEADER = (
        *("invalid-header", REJECT, "PS3.5 7"),
        (
            "The header breaks the encoding rules, so that neither our reader nor pydicom can follow it, or a "
            "value that is needed is not of its type."
        ),
        "Export it again from where it came from; the detail names the element.",
    )
    TRUNCATED = (
        *("truncated", REJECT, "PS3.5 8"),
        (
            "The object ends too early: inside an element or a fragment, or with fewer pixel bytes than rows, "
            "columns and frames need."
        ),
        "Send it again: the transfer was cut.",
    )
    MISSING_STUDY_INSTANCE_UID = (
        *("missing-study-instance-uid", REJECT, "PS3.3 C.7.2.1"),
        "No Study Instance UID (0020,000D).",
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    MISSING_SERIES_INSTANCE_UID = (
        *("missing-series-instance-uid", REJECT, "PS3.3 C.7.3.1"),
        "No Series Instance UID (0020,000E).",
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    MISSING_SOP_INSTANCE_UID = (
        *("missing-sop-instance-uid", REJECT, "PS3.3 C.12.1"),
        "No SOP Instance UID (0008,0018).",
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    MISSING_SOP_CLASS_UID = (
        *("missing-sop-class-uid", REJECT, "PS3.3 C.12.1"),
        "No SOP Class UID (0008,0016).",
        "Export it again: without it nobody knows what the object is.",
    )
    INVALID_UID = (
        *("invalid-uid", REJECT, "PS3.5 9.1"),
        "A UID is longer than 64 characters or holds more than digits between dots.",
        "Have the de-identifier make UIDs of digits and dots.",
    )
    UNSUPPORTED_TRANSFER_SYNTAX = (
        *("unsupported-transfer-syntax", REJECT, "PS3.5 A"),
        "The pixels are encoded in a way that is not read here: video, JPIP, JPEG XL, a private syntax.",
        "Transcode it, for instance to JPEG 2000 Lossless or to Explicit VR Little Endian.",
    )
    NO_PIXEL_DATA = (
        *("no-pixel-data", REJECT, "PS3.3 C.7.6.3"),
        "An image without pixels, rows or columns.",
        "Send the whole object; header-only copies are of no use here.",
    )
    IMPLAUSIBLE_SIZE = (
        *("implausible-size", REJECT, "PS3.3 C.7.6.3"),
        "Rows, columns and frames ask for more memory than any image of this pipeline does.",
        "See whether Rows, Columns and Number of Frames are right.",
    )
    UNSUPPORTED_PIXELS = (
        *("unsupported-pixels", REJECT, "PS3.3 C.7.6.3.1"),
        (
            "Cells or colours that are not read here: Bits Allocated other than 1, 8, 16, 32 or 64, or a retired "
            "colour space (ARGB, CMYK, HSV)."
        ),
        "Convert it to a grey or RGB image of 8 or 16 bits.",
    )
    CONTRADICTORY_PIXELS = (
        *("contradictory-pixels", REJECT, "PS3.3 C.7.6.3.1"),
        (
            "The Image Pixel module contradicts itself: Bits Stored and High Bit do not fit Bits Allocated, "
            "Samples per Pixel do not fit the Photometric Interpretation, or Pixel Representation is neither 0 "
            "nor 1."
        ),
        "Export it again: what its values mean cannot be known.",
    )
    INVALID_FRAGMENTS = (
        *("invalid-fragments", REJECT, "PS3.5 A.4"),
        (
            "Encapsulated pixels without the items that they must begin with, or several frames with an offset "
            "table (Basic or Extended) that contradicts them."
        ),
        "Transcode it with a tool that writes the table anew, or leaves it empty.",
    )
    NOT_AN_IMAGE = (
        *("not-an-image", SKIP, "PS3.4 B.5"),
        "Sound DICOM of another kind: SR, RT object, presentation state, waveform, segmentation, parametric map, …",
        "Nothing.",
    )
    LOCALIZER = (
        *("localizer", SKIP, "PS3.3 C.8.2.1.1.1"),
        "A scout view (Image Type value 3 is LOCALIZER): no part of the volume.",
        "Nothing.",
    )
    DICOMDIR = ("dicomdir", SKIP, "PS3.3 F", "The directory of a medium, no image.", "Nothing.")
    CONFLICTING_INSTANCE = (
        *("conflicting-instance", REJECT, "PS3.5 9"),
        "Another object, put earlier and still there, has the same SOP Instance UID and other content.",
        "Delete one of the two, then send the other one again.",
    )
    SERIES_IN_TWO_STUDIES = (
        *("series-in-two-studies", REJECT, "PS3.3 A.1.2"),
        "The series is already known as part of another study.",
        "Correct the Study Instance UID, or give the series a UID of its own.",
    )
    SERIES_IN_TWO_PROJECTS = (
        *("series-in-two-projects", REJECT, ""),
        "The series is already known in another project. Nothing more is said of either.",
        "Upload it to the project that has it, or give the series UIDs of its own.",
    )
    NIFTI_CORRUPT = (
        *("nifti-corrupt", REJECT, "nifti1.h"),
        "The NIfTI header contradicts itself, or the voxels are cut.",
        "Write the file again.",
    )
    NIFTI_NOT_A_VOLUME = (
        *("nifti-not-a-volume", SKIP, "nifti1.h"),
        "Sound NIfTI, but no scalar volume, nor a series of them in time: channels, a plane, colours, a header alone.",
        "Split channels into volumes.",
    )
    ARCHIVE_CORRUPT = (
        *("archive-corrupt", REJECT, ""),
        "The zip or tar, or a member of it, cannot be read to its end.",
        "Pack it again. Of a damaged zip the sound members have been taken, of a damaged tar nothing.",
    )
    ARCHIVE_UNSUPPORTED = (
        *("archive-unsupported", REJECT, ""),
        "An archive of a kind that is not unpacked here: 7z, RAR, bzip2, xz, Zstandard.",
        "Pack it as zip, tar or tar.gz.",
    )
    ARCHIVE_ENCRYPTED = ("archive-encrypted", REJECT, "", "A member needs a password.", "Pack it without one.")
    ARCHIVE_TOO_LARGE = (
        *("archive-too-large", REJECT, ""),
        "Unpacked, the archive has more members or bytes than allowed, or it is packed so tightly that it is a bomb.",
        "Split it, or raise `VOXELMILL_ARCHIVE_MEMBERS`, `…_BYTES` or `…_RATIO`.",
    )
    ARCHIVE_NESTED_TOO_DEEP = (
        *("archive-nested-too-deep", REJECT, ""),
        "An archive inside an archive.",
        "Send it by itself.",
    )
    ARCHIVE_UNSAFE_MEMBER = (
        *("archive-unsafe-member", REJECT, ""),
        "A member that would leave its folder, is a link or a device, or has a name that cannot be kept.",
        "Pack plain files under plain names.",
    )
    BURNED_IN_TEXT_RISK = (
        *("burned-in-text-risk", SKIP, "PS3.15 E.1.1"),
        "Held back by de-identification: the pixels may show who the patient is.",
        "Look at it; if they show nothing, set Burned In Annotation (0028,0301) to NO and send it again.",
    )
    NOT_DEIDENTIFIABLE = (
        *("not-deidentifiable", REJECT, "PS3.15 E.1.1"),
        "Held back by de-identification: it cannot be read to its end, so nobody can say what it holds.",
        "See what wrote it; send it again if it was damaged on its way.",
    )


class RefusedError(Exception):
    """Carries a refusal out of the rules. `detail` is one line for people that names the element."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
