"""Visits by a real browser: each is a program for Node.js beside the tests, which writes down what it saw."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 150


async def told(story: str, order: dict[str, Any]) -> dict[str, Any]:
    """Have a story told in this event loop, where the gateway runs too; return what was seen."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(Path(__file__).with_name(story)),
        json.dumps(order),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(said)
    return seen
