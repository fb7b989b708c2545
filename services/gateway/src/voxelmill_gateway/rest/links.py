"""The addresses that answers name: always paths of this host, so that they hold behind any proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from voxelmill_shared.catalog import StageOutcome
from voxelmill_shared.events import Stage

if TYPE_CHECKING:
    from fastapi import Request

    from voxelmill_shared.catalog import JobView

PREVIEW: Final = "thumbnails/preview.webp"
"""The picture of a series, which the thumbnail stage always makes where it makes one at all."""
RECEIPT: Final = "receipt.json"


def job_url(job_id: str) -> str:
    """Return the address of a job."""
    return f"/jobs/{quote(job_id, safe='')}"


def file_url(job_id: str, name: str) -> str:
    """Return the address of a result file by its name within the job."""
    return f"/files/{quote(job_id, safe='')}/{quote(name)}"


def archive_url(job: JobView) -> str | None:
    """Return the address of all files of a job as one zip, if it has any."""
    return f"{job_url(job.job_id)}/archive.zip" if job.artefacts else None


def volume_url(job: JobView) -> str | None:
    """Return the address of the volume, of a job whose instances are known."""
    return f"{job_url(job.job_id)}/volume.nii.gz" if job.validated_at else None


def preview_url(job: JobView) -> str | None:
    """Return the address of the preview, if there is one."""
    stage = job.stage(Stage.THUMBNAIL)
    return file_url(job.job_id, PREVIEW) if stage.outcome is StageOutcome.DONE and stage.artefacts else None


def receipt_url(job: JobView) -> str | None:
    """Return the address of the receipt, once every stage has settled."""
    return file_url(job.job_id, RECEIPT) if job.receipt_key else None


def next_page(request: Request, **changed: str | int) -> str:
    """Return the address of this request with some parameters changed."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in changed]
    return f"{request.url.path}?{urlencode([*kept, *changed.items()])}"
