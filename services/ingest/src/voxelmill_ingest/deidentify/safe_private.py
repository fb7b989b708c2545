"""Private attributes that are kept (PS3.15 E.3.10): numbers that the images are measured by.

Of Table E.3.10-1 only those that are numbers, and only while their Value Representation says that they are: whatever a
vendor may one day put there, it is no text. By private creator, group and the last two digits of the element.
"""

from __future__ import annotations

from typing import Final

NUMBERS: Final = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "UL", "US", "SV", "UV"})
"""The Value Representations of numbers."""

SAFE_PRIVATE: Final = frozenset(
    {
        ("ELSCINT1", 0x00E1, 0x21),  # DLP
        ("ELSCINT1", 0x01E1, 0x26),  # phantom type, where it is a number
        ("ELSCINT1", 0x01F1, 0x01),  # acquisition type, where it is a number
        ("ELSCINT1", 0x01F1, 0x07),  # table velocity
        ("ELSCINT1", 0x01F1, 0x26),  # pitch
        ("ELSCINT1", 0x01F1, 0x27),  # rotation time
        ("GEMS_ACQU_01", 0x0019, 0x23),  # table speed, mm per rotation
        ("GEMS_ACQU_01", 0x0019, 0x24),  # mid scan time, s
        ("GEMS_ACQU_01", 0x0019, 0x25),  # mid scan flag
        ("GEMS_ACQU_01", 0x0019, 0x26),  # tube azimuth, degrees
        ("GEMS_ACQU_01", 0x0019, 0x27),  # rotation speed, ms
        ("GEMS_ACQU_01", 0x0019, 0x9E),  # internal pulse sequence, where it is a number
        ("GEMS_HELIOS_01", 0x0045, 0x01),  # macro rows in the detector
        ("GEMS_HELIOS_01", 0x0045, 0x02),  # macro width at the isocentre
        ("GEMS_PARM_01", 0x0043, 0x27),  # scan pitch ratio, where it is a number
        ("GEMS_PARM_01", 0x0043, 0x39),  # slop integers, the first of them the b value
        ("GEMS_PARM_01", 0x0043, 0x6F),  # scanner table entry and gradient coil
        ("GEMS_RELA_01", 0x0021, 0x5C),  # half angles
        ("Philips Imaging DD 001", 0x2001, 0x03),  # diffusion b factor
        ("Philips MR Imaging DD 001", 0x2005, 0x0D),  # scale intercept
        ("Philips MR Imaging DD 001", 0x2005, 0x0E),  # scale slope
        ("Philips MR Imaging DD 001", 0x2005, 0xB0),  # diffusion direction, right to left
        ("Philips MR Imaging DD 001", 0x2005, 0xB1),  # diffusion direction, anterior to posterior
        ("Philips MR Imaging DD 001", 0x2005, 0xB2),  # diffusion direction, foot to head
        ("Philips PET Private Group", 0x7053, 0x00),  # SUV scale factor
        ("Philips PET Private Group", 0x7053, 0x09),  # activity concentration scale factor
        ("SIEMENS MR HEADER", 0x0019, 0x0C),  # b value
        ("SIEMENS MR HEADER", 0x0019, 0x0E),  # diffusion gradient direction
        ("SIEMENS MR HEADER", 0x0019, 0x27),  # b matrix
    }
)


def is_safe(creator: str, tag: int, vr: str) -> bool:
    """Whether a private element is kept."""
    return vr in NUMBERS and (creator.strip(), tag >> 16, tag & 0xFF) in SAFE_PRIVATE
