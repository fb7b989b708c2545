"""The answer to a STOW-RS request: what became of each instance (PS3.18 10.5.3 and Annex I)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from pydicom.datadict import keyword_for_tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxelmill_gateway.dicomweb.identity import Identity

XML: Final = "application/dicom+xml"
_NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

_REFERENCED_SOP_CLASS_UID: Final = "00081150"
_REFERENCED_SOP_INSTANCE_UID: Final = "00081155"
_RETRIEVE_URL: Final = "00081190"
_FAILURE_REASON: Final = "00081197"
_FAILED_SOP_SEQUENCE: Final = "00081198"
_REFERENCED_SOP_SEQUENCE: Final = "00081199"
_OTHER_FAILURES_SEQUENCE: Final = "0008119A"


class FailureReason(IntEnum):
    """Why an instance was not stored (PS3.18 Table I.2-2)."""

    OUT_OF_RESOURCES = 0xA700
    """The store did not take it. Sent again later, it will."""
    NOT_UNDERSTOOD = 0xC000
    """No DICOM file with the UIDs of class, instance, study and series."""
    ANOTHER_STUDY = 0xC409
    """It belongs to another study than the one that the request names. The number is that of dcm4chee."""
    UNSUPPORTED_PART = 0xC415
    """The part is not `application/dicom`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance that was not stored."""

    identity: Identity
    reason: FailureReason


@dataclass(slots=True)
class StowAnswer:
    """What became of a request's instances.

    Parameters
    ----------
    root
        The address of the DICOMweb service, without a slash at its end.
    stored, failed
        The instances, in their order.
    """

    root: str
    stored: Sequence[Identity]
    failed: Sequence[Failed] = field(default_factory=tuple)

    @property
    def status(self) -> int:
        """The HTTP status (PS3.18 Table 10.5.3-1)."""
        if not self.failed:
            return 200
        if self.stored:
            return 202
        reasons = {one.reason for one in self.failed}
        if reasons == {FailureReason.OUT_OF_RESOURCES}:
            return 503
        if reasons == {FailureReason.UNSUPPORTED_PART}:
            return 415
        return 409

    def data_set(self) -> dict[str, Any]:
        """Return the Store Instances Response Module (PS3.18 Table I.1-1) in the DICOM JSON model."""
        studies = {one.study for one in self.stored}
        known = [one for one in self.failed if one.identity.sop_class and one.identity.sop_instance]
        others = [one for one in self.failed if not (one.identity.sop_class and one.identity.sop_instance)]
        # Instances of several studies have no address in common.
        answer: dict[str, Any] = {
            _RETRIEVE_URL: {"vr": "UR", "Value": [f"{self.root}/studies/{studies.pop()}"]}
            if len(studies) == 1
            else {"vr": "UR"}
        }
        sequences = {
            _FAILED_SOP_SEQUENCE: [{**_reference(one.identity), **_reason(one)} for one in known],
            _REFERENCED_SOP_SEQUENCE: [{**_reference(one), **self._address(one)} for one in self.stored],
            _OTHER_FAILURES_SEQUENCE: [_reason(one) for one in others],
        }
        answer |= {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
        return answer

    def _address(self, one: Identity) -> dict[str, Any]:
        address = f"{self.root}/studies/{one.study}/series/{one.series}/instances/{one.sop_instance}"
        return {_RETRIEVE_URL: {"vr": "UR", "Value": [address]}}


def _reference(one: Identity) -> dict[str, Any]:
    return {
        _REFERENCED_SOP_CLASS_UID: {"vr": "UI", "Value": [one.sop_class]},
        _REFERENCED_SOP_INSTANCE_UID: {"vr": "UI", "Value": [one.sop_instance]},
    }


def _reason(failed: Failed) -> dict[str, Any]:
    return {_FAILURE_REASON: {"vr": "US", "Value": [int(failed.reason)]}}


def to_xml(data_set: dict[str, Any]) -> bytes:
    """Write a data set as Native DICOM Model (PS3.19 A.1): texts, numbers and sequences of such data sets."""
    root = ET.Element("NativeDicomModel", {"xmlns": _NAMESPACE, "xml:space": "preserve"})
    _add_attributes(root, data_set)
    text: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return text


def _add_attributes(parent: ET.Element, data_set: dict[str, Any]) -> None:
    for tag in sorted(data_set):
        attribute = data_set[tag]
        keyword = keyword_for_tag(int(tag, 16))
        element = ET.SubElement(parent, "DicomAttribute", {"tag": tag, "vr": attribute["vr"], "keyword": keyword})
        for number, value in enumerate(attribute.get("Value", ()), 1):
            if attribute["vr"] == "SQ":
                _add_attributes(ET.SubElement(element, "Item", {"number": str(number)}), value)
            else:
                ET.SubElement(element, "Value", {"number": str(number)}).text = str(value)
