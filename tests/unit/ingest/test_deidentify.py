"""De-identified copies: dates, UIDs, names, private elements, pixels, NIfTI, and what is held back."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import JPEG2000TransferSyntaxes

from conftest import missing
from voxelmill_ingest.deidentify.dataset import Cleaner
from voxelmill_ingest.deidentify.dates import shift_date, shift_date_time
from voxelmill_ingest.deidentify.errors import NotDeidentifiableError
from voxelmill_ingest.deidentify.job import Copy, Job
from voxelmill_ingest.deidentify.keys import LEAST_DAYS, MOST_DAYS, ProjectKeys, SealBrokenError
from voxelmill_ingest.deidentify.profile import Option
from voxelmill_ingest.deidentify.risk import burned_in_risk
from voxelmill_ingest.deidentify.words import clean
from voxelmill_ingest.deidentify.work import deidentify
from voxelmill_ingest.findings import Refusal
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.settings import IngestSettings

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a key of 32 characters, or longer"
KEYS = ProjectKeys.derive(KEY, "project")
ALL = frozenset(Option)
CT = "1.2.840.10008.5.1.4.1.1.2"
QUIET = {"dcmdump": ["-q", "+E"], "dciodvfy": []}
"""How the two programs are asked to say no more than they must."""


def cleaned(options: frozenset[Option] = ALL, keys: ProjectKeys = KEYS, **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.PatientID = CT, "4711-0815"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    Cleaner(keys.secrets, options)(dataset)
    return dataset


def copied(source: Path, target: Path, options: frozenset[Option] = ALL) -> Copy:
    copy = deidentify(Job(source, source.name, target, KEYS.secrets, options), lambda _: None)
    assert isinstance(copy, Copy)
    return copy


def test_uids_are_new_valid_and_the_same_wherever_they_stand() -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "1.2.3.4"
    step = Dataset()
    step.ReferencedInstanceSequence = [reference]
    copy = cleaned(SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3", SourceImageEvidenceSequence=[step])
    inner = copy.SourceImageEvidenceSequence[0].ReferencedInstanceSequence[0]
    assert inner.ReferencedSOPInstanceUID == copy.SOPInstanceUID == KEYS.secrets.uid("1.2.3.4")
    assert inner.ReferencedSOPClassUID == CT
    assert pydicom.uid.UID(copy.SOPInstanceUID).is_valid
    assert len(copy.SOPInstanceUID) <= 64
    assert copy.StudyInstanceUID != copy.SOPInstanceUID


def test_another_project_or_another_key_gives_others() -> None:
    others = [ProjectKeys.derive(KEY, "other"), ProjectKeys.derive(KEY + "!", "project")]
    for other in others:
        assert other.secrets.uid("1.2.3") != KEYS.secrets.uid("1.2.3")
        assert other.secrets.pseudonym("p") != KEYS.secrets.pseudonym("p")
        assert other.lookup("uid", "1.2.3") != KEYS.lookup("uid", "1.2.3")
        with pytest.raises(SealBrokenError):
            other.open(KEYS.seal({"uid": "1.2.3"}, "name"), "name")
    assert KEYS.open(KEYS.seal({"uid": "1.2.3"}, "name"), "name") == {"uid": "1.2.3"}
    with pytest.raises(SealBrokenError):
        KEYS.open(KEYS.seal({"uid": "1.2.3"}, "name"), "another name")


def test_a_patients_dates_keep_their_distance_and_times_stay() -> None:
    first = cleaned(StudyDate="20110203", AcquisitionDateTime="20110203040506.7+0100", StudyTime="040506")
    second = cleaned(StudyDate="20120203")
    days = KEYS.secrets.shift_days("id\0\0004711-0815")
    assert -MOST_DAYS <= days <= -LEAST_DAYS
    assert first.StudyDate == shift_date("20110203", days)
    assert second.StudyDate == shift_date("20120203", days)
    assert first.AcquisitionDateTime == f"{first.StudyDate}040506.7+0100"
    assert first.StudyTime == "040506"
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"
    assert cleaned(StudyDate="20110203", PatientID="another").StudyDate != first.StudyDate


def test_without_the_option_dates_and_times_go() -> None:
    copy = cleaned(frozenset(), StudyDate="20110203", StudyTime="040506")
    assert not copy.StudyDate
    assert not copy.StudyTime
    assert copy.LongitudinalTemporalInformationModified == "REMOVED"


@pytest.mark.parametrize(
    ("value", "moved"),
    [("20110203", "20110202"), ("2011.02.03", "20110202"), ("20110001", None), ("2011", None), ("00010101", None)],
)
def test_a_date_that_cannot_be_moved_is_none(value: str, moved: str | None) -> None:
    assert shift_date(value, -1) == moved
    assert shift_date_time(value[:4], -1) is None


def test_the_copy_says_how_it_was_made() -> None:
    copy = cleaned(PatientName="Doe^Jane")
    assert copy.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in copy.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113105", "113109", "113111"]
    assert copy.PatientName == copy.PatientID == KEYS.secrets.pseudonym("id\0\0004711-0815")
    assert "2026d" in copy.DeidentificationMethod


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CT Abdomen/Pelvis 3.0 B31f Miller", "CT Abdomen/Pelvis 3.0"),
        ("T1 MPRAGE sag", "T1 MPRAGE sag"),
        ("born 19510203", ""),
        ("Müller thorax", "thorax"),
        ("123456", ""),
        ("^^Doe^^", ""),
    ],
)
def test_of_a_description_only_allowed_words_stay(text: str, left: str) -> None:
    assert clean(text) == left


def test_a_name_is_found_where_no_name_belongs() -> None:
    """Kernel and coil are not in the table, and a patient may be called as a word that is allowed."""
    copy = cleaned(
        PatientName="Long^Jane",
        ReceiveCoilName="coil of LONG",
        SeriesDescription="Long axis chest",
        BodyPartExamined="HEAD",
    )
    assert copy.ReceiveCoilName == "REMOVED"
    assert copy.SeriesDescription == "axis chest"
    assert copy.BodyPartExamined == "HEAD"
    assert cleaned(ConvolutionKernel="B31f 4711-0815").ConvolutionKernel == "REMOVED"


def test_private_elements_go_but_safe_numbers() -> None:
    dataset = Dataset()
    dataset.SOPClassUID = CT
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0B, "LO", "Jane Doe")
    other = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    other.add_new(0x10, "OB", b"Jane Doe")
    text = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    text.add_new(0x00, "LO", "Jane Doe")
    Cleaner(KEYS.secrets, ALL)(dataset)
    assert [element.tag for element in dataset if element.tag.is_private] == [0x00190010, 0x0019100C]


@pytest.mark.parametrize(
    ("attributes", "held_back"),
    [
        ({"BurnedInAnnotation": "YES"}, True),
        ({}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "BurnedInAnnotation": "NO"}, False),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "BurnedInAnnotation": "NO"}, True),
        ({"ConversionType": "WSD"}, True),
        ({"OverlayRows": 4}, True),
    ],
)
def test_pixels_that_may_show_text_are_held_back(attributes: dict[str, Any], held_back: bool) -> None:
    dataset = Dataset()
    dataset.SOPClassUID = CT
    for name, value in attributes.items():
        if name == "OverlayRows":
            dataset.add_new(0x60000010, "US", value)
        else:
            setattr(dataset, name, value)
    assert (burned_in_risk(dataset) is not None) is held_back


@pytest.mark.data
def test_pixels_are_untouched_in_every_transfer_syntax(data: Path, tmp_path: Path) -> None:
    """Whatever the transfer syntax is, it stays, and so do the pixels; of JPEG 2000 all bytes but its comments."""
    seen = set()
    for source in sorted((data / "transfer_syntaxes" / "ct_matrix").glob("*.dcm")):
        result = deidentify(Job(source, source.name, tmp_path / "copy", KEYS.secrets, ALL), lambda _: None)
        if isinstance(result, Refusal):
            assert result.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX
            continue
        before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "copy")
        if before.PixelData != after.PixelData:
            assert before.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes, source.name
            assert len(before.PixelData) == len(after.PixelData)
            assert np.array_equal(before.pixel_array, after.pixel_array)
        assert after.preamble == bytes(128)
        assert before.file_meta.TransferSyntaxUID == after.file_meta.TransferSyntaxUID
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID != before.SOPInstanceUID
        assert "SourceApplicationEntityTitle" not in after.file_meta
        seen.add(str(after.file_meta.TransferSyntaxUID))
    assert len(seen) > 10


@pytest.mark.data
def test_the_same_original_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    source = data / "transfer_syntaxes" / "CT_small.dcm"
    copied(source, tmp_path / "first")
    copied(source, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.data
def test_what_cannot_be_read_to_its_end_is_refused_without_quoting_it(data: Path, tmp_path: Path) -> None:
    source = data / "enhanced" / "emri_small_jpeg_2k_lossless_too_short.dcm"
    with pytest.raises(NotDeidentifiableError) as caught:
        copied(source, tmp_path / "copy")
    assert str(caught.value) == "its data set ends before its pixels"


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_volume_loses_its_texts_and_keeps_its_voxels(tmp_path: Path, kind: Any, suffix: str) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = kind(voxels, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = b"Jane Doe", b"doe.hdr", b"Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe, born 1951"))
    source = tmp_path / f"Jane Doe{suffix}"
    nib.save(image, source)
    target = tmp_path / "copy"
    assert copied(source, target).suffix == suffix
    body = target.read_bytes()
    assert b"oe" not in (gzip.decompress(body) if suffix == ".nii.gz" else body)
    shutil.move(target, tmp_path / f"copy{suffix}")
    after = nib.load(tmp_path / f"copy{suffix}")
    assert np.array_equal(np.asarray(after.dataobj), voxels)
    assert np.array_equal(after.affine, image.affine)
    assert not after.header.extensions


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"ingest_deidentify": "basic"}, "ingest_deidentify_key"),
        ({"ingest_deidentify": "basic", "ingest_deidentify_key": "short"}, "ingest_deidentify_key"),
        ({"ingest_deidentify": "basic", "ingest_deidentify_key_file": "/nowhere/key"}, "ingest_deidentify_key"),
        ({"ingest_deidentify": "basic+faces", "ingest_deidentify_key": KEY}, "ingest_deidentify"),
        ({"ingest_deidentify": "dates", "ingest_deidentify_key": KEY}, "ingest_deidentify"),
        ({"ingest_project": "a b"}, "ingest_project"),
    ],
)
def test_wrong_settings_name_their_variable(settings: dict[str, Any], variable: str) -> None:
    with pytest.raises(ValueError, match="1 validation error") as caught:
        IngestSettings(**settings)
    assert [error["loc"] for error in caught.value.errors()] == [(variable,)]  # type: ignore[attr-defined] # pydantic's
    assert KEY not in str(caught.value)


def test_the_setting_chooses_the_options(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    settings = IngestSettings(ingest_deidentify="basic+device+dates", ingest_deidentify_key_file=tmp_path / "key")
    assert settings.deidentify_options() == {Option.PRIVATE, Option.DATES, Option.DEVICE}
    assert settings.ingest_deidentify_key is not None
    assert settings.ingest_deidentify_key.get_secret_value() == KEY
    assert IngestSettings().deidentify_options() is None


def complaints(program: str, path: Path) -> set[str]:
    """What a program says against a file, without the values that it names."""
    ended = subprocess.run([program, *QUIET[program], path], capture_output=True, check=False)
    lines = (ended.stderr + (ended.stdout if program == "dciodvfy" else b"")).decode(errors="replace").splitlines()
    return {re.sub(r"<[\d.]+>", "<>", line) for line in lines if line.startswith(("Error", "W: ", "E: ", "F: "))}


@pytest.mark.data
@pytest.mark.parametrize("options", [ALL, frozenset({Option.PRIVATE})], ids=["all", "basic"])
def test_other_programs_find_no_new_fault(data: Path, tmp_path: Path, options: frozenset[Option]) -> None:
    """Dcmtk reads every copy as well as its original, and dicom3tools finds each as true to its IOD."""
    for program in QUIET:
        if shutil.which(program) is None:
            missing(f"no {program} (Debian packages dcmtk and dicom3tools)")
    sources = [
        next(path for path in sorted(folder.iterdir()) if path.is_file())
        for folder in data.iterdir()
        if folder.is_dir() and any(path.is_file() for path in folder.iterdir())
    ]
    sources += (
        sorted((data / "enhanced").glob("*.dcm")) + sorted((data / "enhanced" / "siemens_vida_agfa").iterdir())[:1]
    )
    sources += sorted((data / "transfer_syntaxes" / "ct_matrix").glob("*.dcm"))[:3]
    checked = 0
    for source in sources:
        target = tmp_path / "copy"
        try:
            result = deidentify(Job(source, source.name, target, KEYS.secrets, options), lambda _: None)
        except NotDeidentifiableError:
            continue
        if isinstance(result, Refusal) or not pydicom.dcmread(source, stop_before_pixels=True).get("SOPClassUID"):
            continue  # what says of no class what it is, is not checked against any
        for program in QUIET:
            assert complaints(program, target) - complaints(program, source) == set(), (source.name, program)
        checked += 1
    assert checked >= 10
