"""What is said about a series as a whole."""

from __future__ import annotations

from typing import Any

from unit.ingest.dicom_objects import dataset, encoded, judge
from voxelmill_ingest.consistency import series_warnings
from voxelmill_ingest.findings import Instance


def instances(*changes: dict[str, Any]) -> list[Instance]:
    found = [
        judge(encoded(dataset(SOPInstanceUID=f"1.2.3.{n}", **change))) for n, change in enumerate(changes, start=1)
    ]
    assert all(isinstance(one, Instance) for one in found)
    return found  # type: ignore[return-value]


def codes(*changes: dict[str, Any]) -> list[str]:
    return [warning.partition(":")[0] for warning in series_warnings(instances(*changes))]


def test_nothing_is_said_of_a_series_without_a_fault() -> None:
    assert codes({}, {"PatientID": ""}, {"PatientName": "A^B"}) == []


def test_instances_in_two_frames_of_reference_contradict_each_other() -> None:
    assert codes({}, {"FrameOfReferenceUID": "1.2.8"}) == ["several-frames-of-reference"]


def test_instances_of_two_patients_contradict_each_other() -> None:
    assert codes({"PatientID": "1"}, {"PatientID": "2"}) == ["several-patients"]
    assert codes({"PatientID": "1"}, {"PatientID": "1 "}) == []


def test_without_an_id_patients_are_told_apart_by_their_names() -> None:
    assert codes({"PatientName": "Doe^Jane"}, {"PatientName": "DOE^JANE^^"}) == []
    assert codes({"PatientName": "Doe^Jane"}, {"PatientName": "Doe^John"}) == ["several-patients"]


def test_one_name_in_two_character_sets_is_one_patient() -> None:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
    assert codes(latin, latin | {"SpecificCharacterSet": "ISO_IR 192"}) == []


def test_instances_of_two_modalities_contradict_each_other() -> None:
    assert codes({}, {"Modality": "PT"}) == ["several-modalities", "modality-mismatch"]


def test_a_warning_is_given_once_with_how_many_instances_have_it() -> None:
    lacking = {"PixelSpacing": None}
    said = series_warnings(instances(lacking, {}, lacking | {"RescaleSlope": "0"}))
    assert said == (
        "missing-pixel-spacing: Pixel Spacing is absent (2 of 3 instances)",
        "invalid-rescale: Rescale Slope is 0 (1 of 3 instances)",
    )
    assert series_warnings(instances(lacking)) == ("missing-pixel-spacing: Pixel Spacing is absent",)
    assert series_warnings(instances(lacking, lacking)) == (
        "missing-pixel-spacing: Pixel Spacing is absent (all 2 instances)",
    )


def test_no_warning_and_no_event_tells_a_patient() -> None:
    found = instances({"PatientID": "4711-secret", "PatientName": "Secret^Name"}, {"PatientID": "other-secret"})
    said = " ".join([*series_warnings(found), *(one.model_dump_json() for one in found)])
    assert "secret" not in said.lower()


def test_the_mark_of_a_patient_is_another_one_in_every_series() -> None:
    one, other = instances({"PatientID": "1"}, {"PatientID": "1", "SeriesInstanceUID": "1.2.9"})
    assert one.patient_mark
    assert one.patient_mark != other.patient_mark
