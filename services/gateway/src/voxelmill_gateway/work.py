"""What runs in the gateway's child processes: all that decodes what others have written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxelmill_gateway.dicomweb.drawing import draw
from voxelmill_gateway.dicomweb.parsing import bulk_value, read_header
from voxelmill_gateway.dicomweb.transcoding import frames_of, transcode
from voxelmill_gateway.task import BuildVolume, Draw, Header, ReadBulk, ReadFrames, ReadHeaders, Transcode
from voxelmill_gateway.volume_work import build_volume
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from voxelmill_gateway.task import Request
    from voxelmill_shared.work import Report


def run(request: Request, report: Report) -> Any:
    """Do one of the requests of `task` and return what it says."""
    match request:
        case ReadHeaders():
            return _headers(request)
        case ReadFrames():
            return frames_of(request.path, request.frames, decode=request.decode)
        case ReadBulk():
            return bulk_value(request.path, request.element)
        case Transcode():
            return transcode(request.path, request.output)
        case Draw():
            return draw(request)
        case BuildVolume():
            return build_volume(request, report)


def _headers(request: ReadHeaders) -> list[Header | UnsupportedSeriesError | None]:
    """Read each header; of one that cannot be read, why: the others are read all the same."""
    found: list[Header | UnsupportedSeriesError | None] = []
    for source, size in zip(request.sources, request.sizes, strict=True):
        try:
            found.append(read_header(source, size))
        except UnsupportedSeriesError as error:
            found.append(error)
    return found
