"""What can happen to any file: bits flipped, bytes lost, pieces of other files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


def flipped(rng: Random, data: bytes, first: int = 0, last: int | None = None) -> bytes:
    """Flip a few bits between two places."""
    body = bytearray(data)
    last = len(body) if last is None else min(last, len(body))
    if first >= last:
        return data
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        body[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
    return bytes(body)


def cut(rng: Random, data: bytes) -> bytes:
    """Lose the end."""
    return data[: rng.randrange(len(data))] if data else data


def spliced(rng: Random, data: bytes, other: bytes) -> bytes:
    """Lose a piece, say one twice, overwrite one with zeros or rubbish, or put in one of another file."""
    begin = rng.randrange(len(data))
    end = min(len(data), begin + rng.choice((1, 2, 7, 64, 1000)))
    from_other = rng.randrange(len(other))
    piece = {
        "lost": b"",
        "twice": data[begin:end] * 2,
        "zeros": bytes(end - begin),
        "ones": b"\xff" * (end - begin),
        "rubbish": rng.randbytes(end - begin),
        "other": other[from_other : from_other + end - begin],
    }[rng.choice(("lost", "twice", "zeros", "ones", "rubbish", "other"))]
    return data[:begin] + piece + data[end:]
