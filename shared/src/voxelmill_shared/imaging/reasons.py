"""Why a series cannot be worked on: the catalogue of codes that `UnsupportedSeriesError` carries."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from voxelmill_shared.text import shown
from voxelmill_shared.work import UnsupportedSeriesError

_LONGEST_REASON = 1000
"""Characters: what a file says of itself may be as long as the file."""


class Unsupported(StrEnum):
    """The codes, each with one line that explains it to people.

    A code is part of the interface: it stands in dead letters, receipts and metrics, so it is never renamed.
    """

    explanation: str

    def __new__(cls, code: str, explanation: str) -> Self:
        """Make a member that is its code and carries its explanation."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.explanation = explanation
        return member

    UNREADABLE_HEADER = "unreadable-header", "The header cannot be read, or an element that is needed has no sense."
    NOT_AN_IMAGE = "not-an-image", "The object has no pixels (or no Rows and Columns)."
    IMPLAUSIBLE_SIZE = "implausible-size", "The header claims more pixels than the file can hold or than is allowed."
    TRUNCATED_PIXELS = "truncated-pixels", "There are fewer pixel data than the header says: the file was cut off."
    UNDECODABLE_PIXELS = "undecodable-pixels", "No decoder makes the pixels that the header describes of the data."
    COLOUR_IMAGES = "colour-images", "The images are in colour; a volume needs one value per voxel."
    DERIVED_OBJECT = "derived-object", "The object is made from images (a segmentation, a dose): it is not a volume."
    NO_GEOMETRY = "no-geometry", "Position, orientation or pixel spacing is absent: where a voxel lies is unknown."
    BAD_GEOMETRY = "bad-geometry", "The geometry contradicts itself: directions not at right angles, spacing not > 0."
    TOO_FEW_SLICES = "too-few-slices", "There are fewer than two slices."
    MIXED_SERIES = "mixed-series", "The files are of several patients, series, modalities or settings."
    MIXED_FRAMES_OF_REFERENCE = "mixed-frames-of-reference", "The images lie in several frames of reference."
    MIXED_ORIENTATIONS = "mixed-orientations", "The slices are not parallel: several blocks or scouts in one series."
    MIXED_SIZES = "mixed-sizes", "The images differ in rows, columns or pixel spacing."
    REPEATED_POSITIONS = "repeated-positions", "Every position holds several images that nothing tells apart."
    DUPLICATE_POSITIONS = "duplicate-positions", "Some positions hold several images of different content."
    MISSING_SLICES = "missing-slices", "The slices are even but for gaps: more are absent than may be filled in."
    UNEVEN_SPACING = "uneven-spacing", "The distances between the slices differ too much, or they drift sideways."
    NOT_ONE_VOLUME = "not-one-volume", "The voxels of a NIfTI file are several channels, or vectors."
    UNSUPPORTED_VALUES = "unsupported-values", "The voxels are of a type that is no scalar (colour, complex)."

    def error(self, reason: str) -> UnsupportedSeriesError:
        """Return the error to raise; `reason` is for people and names what is wrong and where.

        It is made one line: it may hold what the file says of itself.
        """
        return UnsupportedSeriesError(self.value, shown(reason, _LONGEST_REASON))
