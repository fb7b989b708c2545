"""The attributes that QIDO-RS knows: what may be asked for, and what is returned (PS3.18 10.6)."""

from __future__ import annotations

from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword


def tag_of(name: str) -> str | None:
    """Return the tag, as eight digits, of an attribute that is named by keyword or tag; None if there is none."""
    if len(name) == 8:
        try:
            return f"{int(name, 16):08X}"
        except ValueError:
            pass
    tag = tag_for_keyword(name)
    return None if tag is None else f"{int(tag):08X}"


def vr_of(tag: str) -> str:
    """Return an attribute's value representation; `UN` for one that is not known."""
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "UN"


def keyword_of(tag: str) -> str:
    """Return an attribute's keyword, or its tag."""
    return keyword_for_tag(int(tag, 16)) or tag


def _tag(keyword: str) -> str:
    tag = tag_of(keyword)
    if tag is None:
        raise LookupError(keyword)
    return tag


STUDY_UID: Final = _tag("StudyInstanceUID")
SERIES_UID: Final = _tag("SeriesInstanceUID")
SOP_UID: Final = _tag("SOPInstanceUID")
MODALITY: Final = _tag("Modality")
MODALITIES: Final = _tag("ModalitiesInStudy")
SERIES_NUMBER: Final = _tag("SeriesNumber")
FRAMES: Final = _tag("NumberOfFrames")
TRANSFER_SYNTAXES: Final = _tag("AvailableTransferSyntaxUID")
RETRIEVE_URL: Final = _tag("RetrieveURL")
AVAILABILITY: Final = _tag("InstanceAvailability")
CHARACTER_SET: Final = _tag("SpecificCharacterSet")
STUDY_SERIES: Final = _tag("NumberOfStudyRelatedSeries")
STUDY_INSTANCES: Final = _tag("NumberOfStudyRelatedInstances")
SERIES_INSTANCES: Final = _tag("NumberOfSeriesRelatedInstances")

OF_STUDY: Final = {
    _tag(keyword): column
    for keyword, column in (
        ("StudyInstanceUID", "study_instance_uid"),
        ("PatientID", "patient_id"),
        ("PatientName", "patient_name_folded"),
        ("PatientBirthDate", "patient_birth_date"),
        ("PatientSex", "patient_sex"),
        ("StudyDate", "study_date"),
        ("StudyTime", "study_time"),
        ("AccessionNumber", "accession_number"),
        ("ReferringPhysicianName", "referring_physician_name"),
        ("StudyID", "study_id"),
        ("StudyDescription", "study_description"),
    )
}
"""What describes a study, with the column of `catalog_headers` that it is matched by."""
OF_SERIES: Final = {
    _tag(keyword): column
    for keyword, column in (
        ("SeriesInstanceUID", "series_instance_uid"),
        ("Modality", "modality"),
        ("SeriesDescription", "series_description"),
        ("BodyPartExamined", "body_part_examined"),
    )
}
"""What describes a series, likewise."""
OF_INSTANCE: Final = {
    _tag(keyword): column
    for keyword, column in (
        ("SOPInstanceUID", "sop_instance_uid"),
        ("SOPClassUID", "sop_class_uid"),
        ("AvailableTransferSyntaxUID", "transfer_syntax_uid"),
    )
}
"""What describes an instance, with the column of `catalog_instances` and `catalog_derived`; texts, and"""
COUNTED_OF_INSTANCE: Final = {
    _tag(keyword): column
    for keyword, column in (
        ("InstanceNumber", "instance_number"),
        ("Rows", "rows"),
        ("Columns", "columns"),
        ("NumberOfFrames", "frames"),
    )
}
"""numbers."""
IN_STUDY_JSON: Final = frozenset(
    map(_tag, ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC"))
)
IN_SERIES_JSON: Final = frozenset(
    map(
        _tag,
        (
            *("SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName"),
            *("PerformingPhysicianName", "ProtocolName", "PatientPosition", "Laterality", "FrameOfReferenceUID"),
            *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepID"),
            *("PerformedProcedureStepDescription",),
        ),
    )
)
"""What else can be matched: by what the catalog keeps of the header as JSON."""
RETURNED_OF_STUDY: Final = frozenset(
    map(
        _tag,
        (
            *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
            *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
            *("StudyDescription",),
        ),
    )
)
"""What is returned of a study without being asked for (PS3.18 Table 10.6.1-3)."""
RETURNED_OF_SERIES: Final = frozenset(
    map(
        _tag,
        (
            *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "TimezoneOffsetFromUTC"),
            *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence"),
            *("BodyPartExamined",),
        ),
    )
)
"""What is returned of a series without being asked for (PS3.18 Table 10.6.1-4)."""
