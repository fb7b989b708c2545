"""What is odd about an object or a series that is taken all the same: the warnings of the documented catalogue.

They travel as text, `code: detail`, in `object.validated`, in the manifest of the series, and in the receipt.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Caution(StrEnum):
    """One word for each kind of warning. `source`, `explanation` and `advice` are as in `Reason`."""

    source: str
    explanation: str
    advice: str

    def __new__(cls, word: str, source: str, explanation: str, advice: str) -> Self:
        """Make a member that is its word and carries the rest."""
        member = str.__new__(cls, word)
        member._value_ = word
        member.source, member.explanation, member.advice = source, explanation, advice
        return member

    def about(self, detail: str) -> str:
        """Return the warning as it travels. `detail` is one clause that names the element, and never the patient."""
        return f"{self.value}: {detail}"

    UNUSUAL_ENCODING = (
        *("unusual-encoding", "PS3.5 7"),
        "The header breaks the encoding rules; pydicom could follow it all the same.",
        "Compare the object with its source; what wrote it should be mended.",
    )
    ASSUMED_TRANSFER_SYNTAX = (
        *("assumed-transfer-syntax", "PS3.10 7.1"),
        "No Transfer Syntax UID is given; the bytes told which it is.",
        "Have the file meta information written.",
    )
    CONTRADICTED_TRANSFER_SYNTAX = (
        *("contradicted-transfer-syntax", "PS3.5 A"),
        (
            "The data set has explicit VRs where its transfer syntax says that it has none, or the reverse. It is"
            " read as it is."
        ),
        "Have what wrote it mended: other programs may not read it.",
    )
    META_MISMATCH = (
        *("meta-mismatch", "PS3.10 7.1"),
        "The file meta information names another SOP Class or Instance than the data set. The data set counts.",
        "See whether the object was changed without its meta information.",
    )
    UID_LEADING_ZERO = (
        *("uid-leading-zero", "PS3.5 9.1"),
        "A component of a UID begins with 0. The UID is taken as it is.",
        "Other systems may refuse it: have UIDs made after the rules.",
    )
    MADE_STUDY_INSTANCE_UID = (
        *("made-study-instance-uid", "PS3.3 C.7.2.1"),
        "No Study Instance UID: one was made from the series or its frame of reference.",
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    MADE_SERIES_INSTANCE_UID = (
        *("made-series-instance-uid", "PS3.3 C.7.3.1"),
        "No Series Instance UID: one was made from the frame of reference with the series' number, date and time.",
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    INVALID_INSTANCE_NUMBER = (
        *("invalid-instance-number", "PS3.3 C.7.6.1"),
        "Instance Number is no number, and is left out.",
        "Nothing: slices are ordered by their positions.",
    )
    UNKNOWN_CHARACTER_SET = (
        *("unknown-character-set", "PS3.3 C.12.1.1.2"),
        "Specific Character Set is no defined term, so text may be read wrongly.",
        "Have what wrote it mended. No result holds the text.",
    )
    UNDECODABLE_TEXT = (
        *("undecodable-text", "PS3.5 6.1"),
        "Patient's Name holds bytes that are nothing in the object's character set.",
        "Have Specific Character Set corrected. No result holds the name.",
    )
    MISSING_PIXEL_DESCRIPTION = (
        *("missing-pixel-description", "PS3.3 C.7.6.3"),
        (
            "An element of the Image Pixel module is absent (or Number of Frames is 0), and its usual value is taken: "
            "one frame, one sample, MONOCHROME2 or RGB, all bits stored, unsigned, colours by pixel."
        ),
        "See whether the values and the picture are right.",
    )
    UNUSUAL_HIGH_BIT = (
        *("unusual-high-bit", "PS3.5 8.1.1"),
        "High Bit is not Bits Stored - 1: values do not lie at the low end of their cells, as in very old objects.",
        "See whether the values are right.",
    )
    UNKNOWN_PHOTOMETRIC_INTERPRETATION = (
        *("unknown-photometric-interpretation", "PS3.3 C.7.6.3.1.2"),
        "Photometric Interpretation is no defined term.",
        "See whether the picture is right; no volume is made of it.",
    )
    SURPLUS_PIXELS = (
        *("surplus-pixels", "PS3.3 C.7.6.3"),
        "There are more pixel bytes than rows, columns and frames need; the rest is ignored.",
        "See whether Number of Frames is right.",
    )
    LOSSY_COMPRESSION = (
        *("lossy-compression", "PS3.3 C.7.6.1.1.5"),
        "The pixels have been compressed with loss: values are near those that were measured.",
        "Do not measure on it what the loss may have changed.",
    )
    ODD_OFFSET_TABLE = (
        *("odd-offset-table", "PS3.5 A.4"),
        "The offset table of a single frame contradicts it. It is not needed, and not used.",
        "Nothing.",
    )
    MODALITY_MISMATCH = (
        *("modality-mismatch", "PS3.3 C.7.3.1.1.1"),
        "Modality is another than the SOP Class demands.",
        "See which of the two is right: Modality decides how values are read and which model is asked.",
    )
    MISSING_IMAGE_TYPE = (
        *("missing-image-type", "PS3.3 C.7.6.1.1.2"),
        "No Image Type, though the SOP Class demands it: a localizer cannot be told by it.",
        "Nothing, unless the series holds scouts.",
    )
    MISSING_POSITION = (
        *("missing-position", "PS3.3 C.7.6.2"),
        (
            "No Image Position or Image Orientation (Patient), though the SOP Class demands them: pictures are "
            "made, and no volume."
        ),
        "Export the object with its geometry.",
    )
    INVALID_POSITION = (
        *("invalid-position", "PS3.3 C.7.6.2.1.1"),
        "Image Position (Patient) is no point, or Image Orientation (Patient) no two unit vectors at right angles.",
        "Export the object with its geometry.",
    )
    MISSING_PIXEL_SPACING = (
        *("missing-pixel-spacing", "PS3.3 10.7.1.1"),
        "No Pixel Spacing, though the SOP Class demands it: pictures are made, and no volume.",
        "Export the object with its geometry.",
    )
    INVALID_PIXEL_SPACING = (
        *("invalid-pixel-spacing", "PS3.3 10.7.1.1"),
        "Pixel Spacing is not two numbers above 0.",
        "Export the object with its geometry.",
    )
    MISSING_FRAME_OF_REFERENCE = (
        *("missing-frame-of-reference", "PS3.3 C.7.4.1"),
        (
            "No Frame of Reference UID (or a malformed one), though the SOP Class demands it: results cannot be "
            "laid over other series."
        ),
        "Have the de-identifier replace UIDs instead of blanking them.",
    )
    MISSING_RESCALE = (
        *("missing-rescale", "PS3.3 C.8.2.1, C.8.9.4"),
        "No Rescale Slope and Intercept in a CT or PET image: stored values are taken as they are.",
        "See whether the values are HU (or the unit that Units names).",
    )
    INVALID_RESCALE = (
        *("invalid-rescale", "PS3.3 C.11.1"),
        "Rescale Slope or Intercept is no number, or the slope is 0.",
        "Export the object again.",
    )
    MISSING_UNITS = (
        *("missing-units", "PS3.3 C.8.9.1"),
        "No Units in a PET image: what its values measure is unknown.",
        "Do not compare its values with others.",
    )
    MISSING_FUNCTIONAL_GROUPS = (
        *("missing-functional-groups", "PS3.3 C.7.6.16"),
        (
            "A multi-frame image of an enhanced SOP class without its Shared or Per-Frame Functional Groups "
            "Sequence: where its frames lie is unknown."
        ),
        "Export the object with its functional groups.",
    )
    SEVERAL_FRAMES_OF_REFERENCE = (
        *("several-frames-of-reference", "PS3.3 C.7.4.1"),
        "The instances of one series lie in different frames of reference, so their positions cannot be compared.",
        "Send each as a series of its own.",
    )
    SEVERAL_PATIENTS = (
        *("several-patients", "PS3.3 A.1.2"),
        "The instances of one series name different patients. No volume is made of slices whose Patient IDs differ.",
        "Find out which instances are whose before using any picture: two series may share a UID.",
    )
    SEVERAL_MODALITIES = (
        *("several-modalities", "PS3.3 C.7.3.1"),
        "The instances of one series name different modalities.",
        "Send each as a series of its own.",
    )
