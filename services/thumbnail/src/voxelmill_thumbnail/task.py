"""What the thumbnail service asks its child for, without the libraries that the child needs: asking is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.events import ObjectKind


@dataclass(frozen=True, slots=True)
class ThumbnailTask:
    """What to draw: the files in the order of the manifest, and the folder to write into (made if absent)."""

    paths: tuple[Path, ...]
    kind: ObjectKind
    modality: str
    output: Path
