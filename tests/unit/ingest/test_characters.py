"""Names in every character set that DICOM has."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from unit.ingest.dicom_objects import run
from voxelmill_ingest.characters import about_characters, patient_name
from voxelmill_ingest.elements import Elements, open_data_set
from voxelmill_ingest.ranges import Window
from voxelmill_ingest.tags import PATIENT_NAME, SPECIFIC_CHARACTER_SET, WANTED

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "chrArab.dcm": "قباني^لنزار",
    "chrFren.dcm": "Buc^Jérôme",
    "chrGerm.dcm": "Äneas^Rüdiger",
    "chrGreek.dcm": "Διονυσιος",
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw.dcm": "שרון^דבורה",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrRuss.dcm": "Люкceмбypг",  # noqa: RUF001 - the name is in Cyrillic, but for some letters that are not
    "chrX1.dcm": "Wang^XiaoDong=王^小東",
    "chrX2.dcm": "Wang^XiaoDong=王^小东",
    "chrJapMulti.dcm": "やまだ^たろう",
    "chrKoreanMulti.dcm": "김희중",
}


def header(path: Path) -> Elements:
    body = path.read_bytes()

    def reading() -> Any:
        walker = yield from open_data_set(Window(len(body)), WANTED)
        yield from walker.run()
        return walker.found

    found: Elements = run(reading(), body)[0]
    return found


@pytest.mark.parametrize(("file", "name"), NAMES.items())
def test_names_are_right(data: Path, file: str, name: str) -> None:
    found = header(data / "charsets" / file)
    assert patient_name(found) == name
    assert about_characters(found) == []


def test_every_name_is_the_one_that_pydicom_reads(data: Path) -> None:
    files = sorted((data / "charsets").iterdir())
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what it mends
            expected = str(pydicom.dcmread(path, force=True).get("PatientName", ""))
        assert patient_name(header(path)) == expected, path.name
    assert len(files) == 17


@pytest.mark.parametrize(
    ("character_set", "name", "codes"),
    [
        (b"ISO_IR 192", "Jürgen".encode(), []),
        (b"ISO_IR 192", b"J\xfcrgen", ["undecodable-text"]),
        (b"ISO_IR 100", b"J\xfcrgen", []),
        (b"LATIN1", b"Jurgen", ["unknown-character-set"]),
        (b"ISO 2022 IR 999\\ISO 2022 IR 87", b"Jurgen", ["unknown-character-set"]),
        (b"", b"Jurgen", []),
        (b"\\ISO 2022 IR 87", b"Jurgen", []),
    ],
)
def test_what_is_no_text_is_said(character_set: bytes, name: bytes, codes: list[str]) -> None:
    found = Elements(values={SPECIFIC_CHARACTER_SET: character_set, PATIENT_NAME: name})
    said = about_characters(found)
    assert [warning.partition(":")[0] for warning in said] == codes
    assert "rgen" not in "".join(said)
