"""What ingest lets in, the stages can decode: the two lists stand in parts that do not import each other."""

from __future__ import annotations

import pytest
from pydicom.uid import UID

from voxelmill_ingest.pixels import COMPRESSED
from voxelmill_shared.imaging.decoding import DECODED


def test_ingest_takes_what_is_decoded_and_nothing_else() -> None:
    """One syntax more on either side is a series that fails late, or one that is turned away for nothing."""
    assert COMPRESSED == DECODED


@pytest.mark.parametrize("syntax", sorted(DECODED))
def test_each_is_an_encapsulated_syntax_of_the_standard(syntax: str) -> None:
    """A slip in a number would name another, or none."""
    assert UID(syntax).is_transfer_syntax or syntax == "1.2.840.10008.1.2.8.1"  # younger than pydicom's dictionary
    assert syntax == "1.2.840.10008.1.2.8.1" or UID(syntax).is_encapsulated
