"""Objects of an upload that something else has found before the upload was complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.ingest_kit import ABDOMEN, Ingest, files_of
from voxelmill_shared.events import Evidence, ObjectUploaded, UploadCompleted
from voxelmill_shared.uploads import upload_key

if TYPE_CHECKING:
    from pathlib import Path

UPLOAD = "0123456789abcdef" * 2


async def test_the_reconciler_is_faster_than_the_client(ingest: Ingest, data: Path) -> None:
    """The series waits for the end of the upload, though it has no gaps so far, and then not a moment longer."""
    bodies = list(files_of(data / ABDOMEN).values())
    references = [
        await ingest.put(upload_key("default", UPLOAD, number, ".dcm"), body) for number, body in enumerate(bodies)
    ]
    for reference in references[:15]:
        await ingest.handle(ObjectUploaded(object=reference, found_by="reconciler"))
    ingest.clock.wait(40)
    assert await ingest.completed() == []
    for reference in references:
        await ingest.handle(ObjectUploaded(object=reference, found_by="gateway", upload_id=UPLOAD))
    assert await ingest.completed() == []
    await ingest.handle(UploadCompleted(upload_id=UPLOAD, objects=len(references)))
    (event,) = await ingest.completed()
    assert (event.instances, event.revision, event.evidence) == (20, 1, Evidence.UPLOAD)
