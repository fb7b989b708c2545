"""The contract of object stores, held by Ceph's gateway: the tests that the other stores have, run again."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("contract.test_storage")

from contract import test_storage as contract  # noqa: E402 - after its asserts are made to speak
from voxelmill_shared.storage.connect import open_store  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from voxelmill_shared.storage.base import ObjectStore


@pytest.fixture
async def store(bucket: str) -> AsyncIterator[ObjectStore]:
    """Give an empty store of the gateway."""
    opened = open_store(f"s3://{bucket}/some/prefix", bucket="results")
    yield opened
    await opened.close()


OURS = {"store", "bucket", "s3_environment"}
globals().update(
    {
        name: test
        for name, test in vars(contract).items()
        if name.startswith("test_") and OURS.intersection(inspect.signature(test).parameters)
    }
)


def test_the_contract_is_there() -> None:
    """The tests above were found."""
    assert sum(name.startswith("test_") for name in globals()) > 15
