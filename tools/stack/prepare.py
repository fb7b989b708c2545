"""Make the database and the buckets that the services need; what stands is left as it is.

A process of its own, so that the supervisor stays small. It reads the variables that the services read.
"""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

STANDS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


async def make_database(url: str) -> None:
    """Make the database that a URL names, by way of the server's own."""
    name = urlsplit(url).path.strip("/")
    connection = await asyncpg.connect(urlunsplit(urlsplit(url)._replace(path="/postgres")))
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


async def make_buckets(names: list[str]) -> None:
    """Make the buckets."""
    config = AioConfig(signature_version="s3v4", s3={"addressing_style": "path"})
    async with get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config) as client:
        for name in names:
            try:
                await client.create_bucket(Bucket=name)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in STANDS:
                    raise


async def main() -> None:
    """Do both, or end with one line and exit code 3."""
    try:
        await make_database(os.environ["VOXELMILL_DATABASE_URL"])
        urls = [os.environ[f"VOXELMILL_{name}_URL"] for name in ("INBOX", "WORK", "RESULTS")]
        await make_buckets([urlsplit(url).netloc for url in urls])
    except (asyncpg.PostgresError, BotoCoreError, ClientError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
