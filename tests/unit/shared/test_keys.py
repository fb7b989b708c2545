"""What a key may look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxelmill_shared.errors import UnsafeKeyError
from voxelmill_shared.storage.keys import check_key, check_prefix, is_text, printable

UNSAFE = {
    "empty": "",
    "absolute": "/etc/passwd",
    "the folder above": "../secret",
    "the folder above, inside": "a/../../secret",
    "the folder itself": "a/./b",
    "an empty part": "a//b",
    "a part missing at the end": "a/",
    "only a slash": "/",
    "only dots": "..",
    "NUL": "a\0b",
    "too long": "k" * 1025,
    "too long in UTF-8": "é" * 513,
    "no Unicode": "a\udce9b",
}


@pytest.mark.parametrize("key", UNSAFE.values(), ids=UNSAFE.keys())
def test_unsafe_key_is_refused_in_one_printable_line(key: str) -> None:
    """Every unsafe key is refused, and the reason can be printed on any terminal."""
    with pytest.raises(UnsafeKeyError) as caught:
        check_key(key)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii() or "é" in key


@pytest.mark.parametrize("key", ["a", "a/b.dcm", "...", ".hidden", "a b+c%20.dcm", "Zähne/🦷", "k" * 1024, "a\\..\\b"])
def test_safe_key_is_accepted(key: str) -> None:
    """Keys that merely look odd are accepted."""
    check_key(key)


def test_undecodable_file_name_is_accepted_where_files_are() -> None:
    """A name that is no UTF-8 is fine for the local store only, and `is_text` tells it apart."""
    check_key("caf\udce9.dcm", undecodable=True)
    assert not is_text("caf\udce9.dcm")
    assert is_text("café.dcm")


def test_surrogate_that_stands_for_no_byte_is_refused_everywhere() -> None:
    """Only U+DC80 to U+DCFF stand for bytes (PEP 383)."""
    with pytest.raises(UnsafeKeyError):
        check_key("a\ud800", undecodable=True)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b/", "a/.", ".."])
def test_safe_prefix_is_accepted(prefix: str) -> None:
    """A prefix is plain text that some key can begin with."""
    check_prefix(prefix)


@pytest.mark.parametrize("prefix", ["/", "/a", "../", "a/../b", "a//", "a\0", "p" * 1025])
def test_unsafe_prefix_is_refused(prefix: str) -> None:
    """A prefix with which no key can begin is refused."""
    with pytest.raises(UnsafeKeyError):
        check_prefix(prefix)


@given(st.text())
def test_every_prefix_of_a_safe_key_is_safe(key: str) -> None:
    """Whatever a key begins with may be asked for in a list."""
    try:
        check_key(key)
    except UnsafeKeyError:
        return
    for end in range(len(key) + 1):
        check_prefix(key[:end])


@given(st.text())
def test_printable_is_printable(key: str) -> None:
    """Whatever a key holds, it can be written to a log."""
    assert printable(key).isprintable()
    printable(key).encode()
