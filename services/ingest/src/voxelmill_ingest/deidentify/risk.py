"""Whether the pixels may show identifying text. What cannot be read cannot be cleaned: it is held back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASSES: Final = "1.2.840.10008.5.1.4.1.1."
_RISKY: Final = {
    "3": "ultrasound",
    "3.1": "ultrasound",
    "6": "ultrasound",
    "6.1": "ultrasound",
    "6.2": "ultrasound",
    "6.3": "ultrasound",
    "7": "a secondary capture",
    "7.1": "a secondary capture",
    "7.2": "a secondary capture",
    "7.3": "a secondary capture",
    "7.4": "a secondary capture",
    "12.1": "angiography",
    "12.1.1": "angiography",
    "12.2": "fluoroscopy",
    "12.2.1": "fluoroscopy",
    "12.3": "angiography",
    "77.1.1": "endoscopy",
    "77.1.1.1": "endoscopy",
    "77.1.2": "microscopy",
    "77.1.2.1": "microscopy",
    "77.1.4": "a photograph",
    "77.1.4.1": "a photograph",
}
"""SOP classes whose images are made by devices that write into the pixels, by what they are."""
_CAPTURES: Final = ("SCREEN SAVE", "SCREENSHOT", "SCREEN_SAVE", "SCREENSAVE", "CAPTURE", "DOSE_INFO", "REPORT")
_CONVERTED: Final = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW"})
"""Conversion Type (0008,0064): video, film, paper, workstations (PS3.3 C.8.6.1). SYN is computed and none of them."""


def burned_in_risk(dataset: Dataset) -> str | None:
    """Return in a few words why the pixels may show identifying text, or None.

    What a device says of its own pixels (Burned In Annotation (0028,0301)) counts for more than its kind; a screen that
    was captured is held back whatever it says.
    """
    said = str(dataset.get("BurnedInAnnotation", "") or "").strip().upper()
    if said == "YES":
        return "Burned In Annotation (0028,0301) is YES"
    image_type = " ".join(map(str, _values(dataset.get("ImageType")))).upper()
    if any(word in image_type for word in _CAPTURES):
        return "by its Image Type (0008,0008) a captured screen"
    if _overlay_in_pixels(dataset):
        return "an overlay lies in unused bits of the pixels"
    if said == "NO":
        return None
    if str(dataset.get("ConversionType", "") or "").strip().upper() in _CONVERTED:
        return "by its Conversion Type (0008,0064) a captured image"
    kind = _RISKY.get(str(dataset.get("SOPClassUID", "") or "").removeprefix(_CLASSES))
    return None if kind is None else f"{kind}, and Burned In Annotation (0028,0301) is not NO"


def _values(value: object) -> list[object]:
    if value is None or isinstance(value, str):
        return [value or ""]
    return list(value) if hasattr(value, "__iter__") else [value]


def _overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether an overlay has no data of its own and so lies in the pixels' high bits (PS3.3 C.9.2, retired)."""
    groups = range(0x6000, 0x6020, 2)
    return any((group, 0x0010) in dataset and (group, 0x3000) not in dataset for group in groups)
