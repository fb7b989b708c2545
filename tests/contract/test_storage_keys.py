"""Keys are kept as they are, or refused, by both stores."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.storage_kit import listed
from voxelmill_shared.errors import UnsafeKeyError

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.storage.base import ObjectStore

ODD = [
    "a b",
    "a+b",
    "100%",
    "%2B",
    "a?b#c&d=e",
    "Zähne",
    "Za\u0308hne",
    "牙/齒",
    "🦷/🩻.dcm",
    "~!@$^*()_-'\";:,<>[]{}|`",
    "...",
]


@pytest.mark.parametrize("key", ODD)
async def test_odd_keys_are_kept_as_they_are(store: ObjectStore, key: str, tmp_path: Path) -> None:
    """Keys are raw: nothing is decoded, encoded or normalised on the way."""
    await store.write(f"odd/{key}", key.encode())
    assert set(await listed(store)) == {f"odd/{key}"}
    assert set(await listed(store, f"odd/{key[:1]}")) == {f"odd/{key}"}
    assert (await store.head(f"odd/{key}")).key == f"odd/{key}"
    assert await store.read(f"odd/{key}") == key.encode()
    assert (await store.fetch(f"odd/{key}", tmp_path / "f")).read_bytes() == key.encode()
    await store.delete(f"odd/{key}")
    assert not await listed(store)


# No control characters: XML, in which S3 answers, cannot hold most of them. No backslash: SeaweedFS makes it `/`.
# Parts within what every disk can hold.
PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=40)
KEYS = st.lists(PARTS.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
async def test_any_key_is_kept_as_it_is(store: ObjectStore, key: str) -> None:
    """What `check_key` accepts can be written, listed and read by the same name."""
    key = f"{uuid.uuid4().hex}/{key}"
    await store.write(key, key.encode())
    assert set(await listed(store, key[:33])) == {key}
    assert await store.read(key) == key.encode()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../a", "a/../../b", "a/./b", "a//b", "a/", "a\0b", "k" * 1025])
async def test_unsafe_keys_are_refused_by_everything(store: ObjectStore, key: str, tmp_path: Path) -> None:
    """No operation takes a key that would leave the store or could not be kept faithfully."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for operation in (
        store.head(key),
        store.exists(key),
        store.read(key),
        store.fetch(key, tmp_path),
        store.write(key, b"x"),
        store.write_file(key, source),
        store.delete(key),
    ):
        with pytest.raises(UnsafeKeyError):
            await operation
    with pytest.raises(UnsafeKeyError):
        await listed(store, "../a")
    assert not await listed(store)
