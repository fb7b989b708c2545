"""What a mutant is, and the table of those who make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from mutants.seeds import Seeds


@dataclass(frozen=True, slots=True)
class Mutant:
    """One file. `beside` are the sound files of the series that it was a slice of, `source` what it was made of."""

    data: bytes
    name: str = "mutant.dcm"
    beside: tuple[Path, ...] = ()
    source: Path | None = None


if TYPE_CHECKING:
    Maker: TypeAlias = Callable[[Random, Seeds], Mutant]


@dataclass(frozen=True)
class Kinds:
    """The makers by the name of the kind that they make."""

    makers: dict[str, Maker] = field(default_factory=dict)

    def add(self, name: str) -> Callable[[Maker], Maker]:
        """Enter a function into the table."""

        def enter(maker: Maker) -> Maker:
            self.makers[name] = maker
            return maker

        return enter


KINDS = Kinds()
