"""How opaque a segment is shown."""

from __future__ import annotations

import pytest

from voxelmill_shared.opacity import opacity_of


@pytest.mark.parametrize(
    ("name", "opacity"),
    [
        ("skin", 0.15),
        ("lung_left", 0.6),
        ("subcutaneous_fat", 0.15),
        ("bones", 1.0),
        ("bodywork", 1.0),
        ("body_trunc", 0.15),
        ("lung_vessels", 1.0),
        ("vertebrae_body", 1.0),
    ],
)
def test_opacity_goes_by_the_words_of_a_name(name: str, opacity: float) -> None:
    """Whole words decide, not parts of them."""
    assert opacity_of(name) == opacity
