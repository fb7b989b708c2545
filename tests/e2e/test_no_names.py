"""No name and no birth date in any log line, event, audit record, dead letter or metric of a whole run.

A site may put names into the keys of its objects: events hold keys, so keys are taken out of them before they are
searched. Nothing else of an event, and nothing of a log line, an audit record or a metric, may hold one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
import urllib.request
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import nibabel
import numpy as np
import pydicom
import pytest

from e2e.background import background
from voxelmill_shared.privacy import object_digest
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY, QueueSpec, Topology

if TYPE_CHECKING:
    from pathlib import Path

NAME, OTHER, LATIN = "Quibbleworth^Zephyrine", "Snorkelby^Peregrine", "M\u00fcllerowitz^J\u00f6rg"
BIRTH = "19431207"
WORDS = (
    "quibbleworth",
    "zephyrine",
    "snorkelby",
    "peregrine",
    "m\u00fcllerowitz",
    "llerowitz",
    "19431207",
    "1943-12-07",
)
"""What is searched for, in lower case. The middle of the umlauts' name is found in whatever encoding."""
EVERYTHING = QueueSpec("observer.everything", ("#",))


def name_patient(dataset: pydicom.Dataset) -> None:
    """Put the names where headers have them, and where they have not: into values that no reader expects."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = NAME
    dataset.PatientBirthDate = BIRTH
    dataset.OtherPatientNames = [OTHER, LATIN]
    dataset.ReferringPhysicianName = LATIN
    dataset.PatientComments = f"{NAME} born {BIRTH}"


def make_inbox(inbox: Path, series: Path) -> list[str]:
    """Write sound and broken objects of every kind, with names in them and in their keys; return the keys."""
    folder = inbox / NAME / f"{LATIN} {BIRTH}"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(series.iterdir())):
        dataset = pydicom.dcmread(path)
        name_patient(dataset)
        dataset.save_as(folder / f"{OTHER} {number}.dcm")
    broken = pydicom.dcmread(path)
    name_patient(broken)
    with pydicom.config.disable_value_validation():
        for keyword, value in {"SliceThickness": NAME, "WindowCenter": OTHER, "NumberOfFrames": NAME}.items():
            element = pydicom.DataElement(keyword, "LO", value)
            element.VR = pydicom.datadict.dictionary_VR(keyword)
            one = pydicom.dcmread(path)
            name_patient(one)
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
            one.SeriesInstanceUID = pydicom.uid.generate_uid()
            one[keyword] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), element.VR, len(value), value.encode(), 0, False, True
            )
            one.save_as(folder / f"{keyword} {NAME}.dcm")
    # Pixels that cannot be decoded: a dead letter of thumbnail and of segment.
    broken.SeriesInstanceUID, broken.StudyInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    broken.SOPInstanceUID = broken.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    broken.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    broken.PixelData = pydicom.encaps.encapsulate([NAME.encode() * 20])
    broken["PixelData"].VR = "OB"
    broken.save_as(folder / f"undecodable {OTHER}.dcm")
    sound = (folder / f"{OTHER} 0.dcm").read_bytes()
    (folder / f"cut {NAME}.dcm").write_bytes(sound[: len(sound) // 2])
    (inbox / f"{NAME}.dcm").write_text(f"{NAME} {OTHER} {BIRTH}")
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    volume.header["descrip"] = f"{NAME} {BIRTH}".encode()
    nibabel.save(volume, inbox / f"{OTHER}.nii.gz")
    (inbox / f"cut {OTHER}.nii").write_bytes(volume.to_bytes()[:400])
    packed = inbox / f"{LATIN}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{NAME}/{OTHER}.dcm", sound[:3000])
        archive.writestr(f"../{NAME}.dcm", sound[:3000])
        archive.writestr(f"{NAME}/{BIRTH} damaged.dcm", b"damage me " * 100)
    packed.write_bytes(packed.read_bytes().replace(b"damage me ", b"damaged it", 1))
    return [str(path.relative_to(inbox)) for path in inbox.rglob("*") if path.is_file()]


def found_in(text: str) -> list[str]:
    """Return which words stand in a text, in whatever spelling: case, percent-encoding, escapes of JSON and Python."""
    spelt = [text, unquote(text), unquote(text, "latin-1"), text.encode("latin-1", "replace").decode("unicode_escape")]
    lowered = [one.lower() for one in spelt]
    return [word for word in WORDS if any(word in one for one in lowered)]


def without(text: str, keys: list[str]) -> str:
    """Take keys out of an event: they are in it by design."""
    for key in sorted(keys, key=len, reverse=True):
        text = text.replace(json.dumps(key)[1:-1], "KEY").replace(key, "KEY")
    return text


async def observe(broker: str) -> None:
    """Have the broker keep a copy of every event from now on."""
    transport = open_transport(broker)
    await transport.declare(Topology((*TOPOLOGY.queues, EVERYTHING)))
    await transport.close()


def settled(catalog: Path) -> bool:
    """Tell whether both series that can be complete have come to their end, and two messages have died."""
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
        try:
            jobs = connection.execute("SELECT status FROM catalog_jobs").fetchall()
            failed = connection.execute("SELECT 1 FROM audit WHERE what = 'stage.failed.v1'").fetchall()
            rejected = connection.execute("SELECT 1 FROM audit WHERE outcome = 'rejected'").fetchall()
        except sqlite3.OperationalError:
            return False  # not made yet
    return len(jobs) >= 2 and {job[0] for job in jobs} <= {"complete", "partial"} and len(failed) >= 1 < len(rejected)


@pytest.mark.parametrize("word", [NAME, quote(LATIN), json.dumps(LATIN), repr(OTHER), LATIN.upper(), f"x{BIRTH}y"])
def test_the_search_finds_every_spelling(word: str) -> None:
    """Else the other test proves nothing."""
    assert found_in(f'{{"reason": "of {word}"}}')
    assert not found_in(without(f'{{"key": "{word}"}}', [word]))


def test_no_name_leaves_the_files_and_their_keys(small: list[Path], tmp_path: Path) -> None:
    """Every service, on sound and broken objects of every kind; some seconds, for it is a whole run."""
    data = tmp_path / "data"
    data.mkdir()
    asyncio.run(observe(f"embedded://{quote(str(data / 'broker.db'))}"))
    keys = make_inbox(tmp_path / "made", small[0])
    with background(
        "up", "--data", data, "--organ", "bones", "--port", "0",
        VOXELMILL_LOG_LEVEL="DEBUG",
        VOXELMILL_LADDER="[0.1]",
        VOXELMILL_GEOMETRY_SECONDS="1",
        VOXELMILL_QUIET_SECONDS="2",
    ) as process:  # fmt: skip
        address = process.line_with("look at them on").split(" on ")[1].split(";")[0]
        for path in (tmp_path / "made").iterdir():
            path.rename(data / "inbox" / path.name)
        deadline = time.monotonic() + 240
        while not settled(data / "voxelmill.db"):
            assert time.monotonic() < deadline
            assert process.fork.poll() is None
            time.sleep(0.1)
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        assert process.end(signal.SIGTERM) == 0
    log = process.errors
    assert log.count("message settled") > 20
    assert [(line, found) for line in log.splitlines() if (found := found_in(line))] == []
    assert found_in(metrics) == []
    events, letters = [], []
    with closing(sqlite3.connect(data / "broker.db")) as connection:
        queue = connection.execute("SELECT body FROM message WHERE queue = ?", [EVERYTHING.name])
        events = [body.decode() for (body,) in queue]
        letters = [headers for (headers,) in connection.execute("SELECT headers FROM dead_letter")]
    archive = f"{LATIN}.zip"
    members = [f"{archive}!../{NAME}.dcm", f"{archive}!{NAME}/{BIRTH} damaged.dcm"]
    members += [json.loads(body)["data"]["object"]["key"] for body in events if '"bucket":"work"' in body]
    assert len(events) > 20
    assert letters
    assert [(body, found) for body in events if (found := found_in(without(body, [*keys, *members])))] == []
    assert [(headers, found) for headers in letters if (found := found_in(headers))] == []
    with closing(sqlite3.connect(data / "voxelmill.db")) as connection:
        trail = [" ".join(map(str, row)) for row in connection.execute("SELECT * FROM audit")]
    assert len(trail) > 15
    assert [(row, found) for row in trail if (found := found_in(row))] == []
    assert any(object_digest(f"inbox/{NAME}.dcm") in row for row in trail)
    assert object_digest(f"inbox/{NAME}.dcm") in log
