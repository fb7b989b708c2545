"""Warnings on their way: from an object's header to its event, and to the manifest of its series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.ingest_kit import Clock, Ingest, of
from unit.ingest.dicom_objects import dataset, encoded
from voxelmill_shared.events import ObjectValidated

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_is_odd_stands_in_events_and_in_the_manifest(tmp_path: Path) -> None:
    """And nowhere who the patients are."""
    ingest = await Ingest(tmp_path, f"sqlite:///{tmp_path}/ledger.db", Clock()).open()
    try:
        lacking = {"PixelSpacing": None, "PatientID": "secret-1"}
        other = {"FrameOfReferenceUID": "1.2.8", "PatientID": "secret-2", "SOPInstanceUID": "1.2.3.2"}
        files = {"a.dcm": encoded(dataset(**lacking)), "b.dcm": encoded(dataset(**other))}
        published = await ingest.upload(files, "upload-1")
        events = of(ObjectValidated, published)
        assert [event.warnings for event in events] == [("missing-pixel-spacing: Pixel Spacing is absent",), ()]
        (completed,) = await ingest.completed()
        manifest = await ingest.manifest(completed)
        assert manifest.warnings == (
            "several-patients: 2 patients in 2 instances",
            "several-frames-of-reference: 2 frames of reference in 2 instances",
            "missing-pixel-spacing: Pixel Spacing is absent (1 of 2 instances)",
        )
        assert "secret" not in manifest.model_dump_json() + "".join(event.model_dump_json() for event in events)
    finally:
        await ingest.close()
