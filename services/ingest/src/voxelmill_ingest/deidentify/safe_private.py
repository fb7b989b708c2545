"""Private attributes that are kept (PS3.15 E.3.10): numbers that the images are measured by.

Of Table E.3.10-1, edition 2026d, those that are numbers and say how an image was acquired or scaled; the rest of it
(texts, sequences, bulk data, what a workstation drew) is dropped like any other private attribute. A value is kept only
while it is a number in the table's Value Representation: whatever a vendor may one day put there, it is no text.
"""

from __future__ import annotations

from typing import Final

SAFE_PRIVATE: Final[dict[tuple[str, int], dict[str, str]]] = {
    ("ELSCINT1", 0x00E1): {"DS": "21 50"},  # DLP, acquisition duration
    ("ELSCINT1", 0x01F1): {"DS": "07 26 27"},  # table velocity, pitch, rotation time
    ("GEMS_ACQU_01", 0x0019): {"DS": "23 24 27"},  # table speed, mid scan time, rotation speed
    ("GEMS_HELIOS_01", 0x0045): {"SS": "01", "FL": "02"},  # macro rows in the detector, macro width at the isocentre
    ("GEMS_PARM_01", 0x0043): {"IS": "39", "DS": "6F"},  # b value and three more, table entry and gradient coil
    ("GEMS_SERS_01", 0x0025): {"SL": "07"},  # images in the series
    ("Philips Imaging DD 001", 0x2001): {  # b factor (03), chemical shift, delays, echoes, slices, stacks, phases
        "FL": "01 03 09 11 1A 1B 22 32 F1 F2",
        "IS": "02 08 0A 1D 7B 81 82 86",
        "SS": "0F 15 16 2D 35",
        "SL": "13 14 17 18 60",
        "DS": "23 83 84 85 88 89 8A",
    },
    ("Philips MR Imaging DD 001", 0x2005): {"FL": "0D 0E"},  # scale intercept and slope
    ("Philips PET Private Group", 0x7053): {"DS": "00 09"},  # SUV factor, activity concentration factor
    ("SIEMENS MR HEADER", 0x0019): {"IS": "0C", "FD": "0E 27"},  # b value, gradient direction, b matrix
}
"""By private creator and group: the last two digits of the elements, by Value Representation."""

_VRS: Final = {
    (creator, group, int(element, 16)): vr
    for (creator, group), by_vr in SAFE_PRIVATE.items()
    for vr, elements in by_vr.items()
    for element in elements.split()
}


def safe_vr(creator: str, tag: int) -> str | None:
    """Return the Value Representation that a private element has in the table; None if it is not kept."""
    return _VRS.get((creator.strip(), tag >> 16, tag & 0xFF))
