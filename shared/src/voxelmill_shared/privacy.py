"""What is not written down: object keys, where a site may have put names, and texts that quote what a file holds.

Keys stand in events and in the catalog, which are read by those who may see them. A log line, an audit record and a
dead letter's headers travel further, so they name an object by a digest of its key, `inbox#3f1c…`; the catalog leads
from the digest back to the key (`voxelmill status --object`).
"""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from voxelmill_shared.errors import VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DIGEST_DIGITS = 16
"""Hex digits of SHA-256 that name a key: of a million objects two share a name with a chance of 1 in 37 million."""
DIGEST = re.compile(rf"\b([\w.-]+#[0-9a-f]{{{DIGEST_DIGITS}}})\b")
"""An object's digest in a text."""
_KEPT = 10_000
"""How many keys of this process are remembered, the last ones: whoever writes about a key has just used it."""
_SHORTEST = 3
"""A shorter name tells nothing, and it stands in the middle of other texts by chance."""

_NAMELESS = "results"
"""The store whose keys Voxelmill makes itself, of UIDs and numbers."""

_recent: dict[str, str] = {}
"""The keys that this process used last, as they may stand in a text, with their digests. The newest is the last."""

_SAYS_NO_VALUE = (AttributeError, ImportError, NameError, AssertionError, MemoryError, RecursionError, TimeoutError)
"""Errors of Python whose text names code or nothing, and never what a file holds."""


def object_digest(address: str) -> str:
    """Name an object, `bucket/key`, without its key: the bucket, `#`, and 16 hex digits of the key's SHA-256.

    What has no `/` is no object's address and is returned as it is.
    """
    bucket, separator, key = address.partition("/")
    if not separator:
        return address
    return f"{bucket}#{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:DIGEST_DIGITS]}"


def addresses_in(data: Mapping[str, Any]) -> list[str]:
    """Return the address of the object that an event's data name, if they name one."""
    reference = data.get("object")
    if not isinstance(reference, dict) or not {"bucket", "key"} <= reference.keys():
        return []
    return [f"{reference['bucket']}/{reference['key']}"]


def note_key(bucket: str, key: str) -> None:
    """Remember that this process uses a key: from now on `without_keys` knows it."""
    if bucket == _NAMELESS or not key:
        return
    digest = _recent.pop(key, "")
    if not digest.startswith(f"{bucket}#"):
        digest = object_digest(f"{bucket}/{key}")
    _recent[key] = digest
    if not (key.isascii() and key.isprintable()) or "\\" in key:
        hexadecimal = "".join(c if c.isprintable() or ord(c) > 0x7F else f"\\x{ord(c):02x}" for c in key)
        for form in (json.dumps(key)[1:-1], repr(key)[1:-1], hexadecimal):
            _recent.setdefault(form, digest)
    while len(_recent) > _KEPT:
        _recent.pop(next(iter(_recent)), None)


def without_keys(text: str, addresses: Iterable[str] = ()) -> str:
    """Put digests in the place of every key that this process used last, and of those of `addresses`.

    A key is found whole, by its folder where that stands as part of a path, and by its file name; percent-encoded too.
    """
    for address in addresses:
        note_key(*address.partition("/")[::2])
    if not text:
        return text
    known = dict(_recent)  # other threads write lines too
    masked = _masked(text, known)
    if "%" in masked and (decoded := unquote(masked)) != masked and (clear := _masked(decoded, known)) != decoded:
        return clear
    return masked


def with_keys(text: str, addresses: Mapping[str, str]) -> str:
    """Put objects' addresses back in the place of their digests, for people who may see them."""
    return DIGEST.sub(lambda found: addresses.get(found[1], found[1]), text)


def recent_addresses() -> dict[str, str]:
    """Return the addresses that this process used last, by digest."""
    return {digest: f"{digest.partition('#')[0]}/{key}" for key, digest in reversed(_recent.items())}


def unquoted(error: BaseException) -> str:
    """Return what a library's error says without what it quotes, which may be a value out of a file: one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"""b?(["']).*(\1|["'])""", "…", text)


def coded(value: str, most: int = 16) -> str:
    """Return a value that should be a code or a number (`CT`, `ISO_IR 100`, `-1.5`), or how long it is if it is none.

    Whatever else stands in such an element may be anything, a name too.
    """
    return value[:most] if re.fullmatch(r"[A-Z0-9_ ./\\+-]*", value) else f"no code ({len(value)} characters)"


def describe(error: BaseException) -> str:
    """Say in one line what an unforeseen error is, without its text where that may quote what a file holds."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}{_place(error)}"
    if isinstance(error, (VoxelmillError, *_SAYS_NO_VALUE)):
        return f"{kind}: {error}"
    return f"{kind}{_place(error)}; its text is left out: it may quote a file"


def format_error(error: BaseException) -> str:
    """Write the frames that an error came through, and those of its causes, with `describe` in the place of its text.

    Source lines are shown, values are not.
    """
    parts: list[str] = []
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        frames = "".join(traceback.format_tb(now.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe(now)}")
        parts += [f"in a group: {describe(member)}" for member in getattr(now, "exceptions", ())]
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)
    return "\nwhich came of:\n".join(parts)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f" in {last.name} ({last.filename.rpartition('/')[2]}:{last.lineno})"


def _masked(text: str, known: dict[str, str]) -> str:
    for form, digest in sorted(_forms(text, known), key=lambda found: -len(found[0])):
        text = _replace(text, form, digest)
    return text


def _forms(text: str, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Find what of the keys stands in a text, with what is to stand there instead."""
    for key, digest in known.items():
        folder, _, name = key.rpartition("/")
        if name not in text:
            if folder and folder in text:
                yield from _folders(folder, digest)
            continue
        if key in text:
            bucket = digest.partition("#")[0]
            yield f"{bucket}/{key}", digest
            if len(key) >= _SHORTEST:
                yield key, digest
        if folder:
            yield from _folders(folder, digest)
        if len(name) >= _SHORTEST:
            yield name, digest


def _folders(folder: str, digest: str) -> Iterator[tuple[str, str]]:
    # In a path alone: a folder may have the name of a word.
    bucket = digest.partition("#")[0]
    of_folder = object_digest(f"{bucket}/{folder}/")
    yield f"{bucket}/{folder}", of_folder
    yield f"/{folder}", f"/{of_folder}"
    yield f"{folder}/", f"{of_folder}/"


def _replace(text: str, form: str, digest: str) -> str:
    """Replace a form where it stands by itself, not inside of a longer word."""
    before = r"(?<!\w)" if form[:1].isalnum() else ""
    after = r"(?!\w)" if form[-1:].isalnum() else ""
    return re.sub(f"{before}{re.escape(form)}{after}", lambda _: digest, text)
