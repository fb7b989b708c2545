"""What a key may look like, wherever it is stored."""

from __future__ import annotations

from voxelmill_shared.errors import UnsafeKeyError

MAX_KEY_BYTES = 1024
"""The longest key, in bytes of UTF-8 (Amazon S3 User Guide, "Naming Amazon S3 objects")."""

_FORBIDDEN_PARTS = frozenset({"", ".", ".."})


def check_key(key: str, *, undecodable: bool = False) -> None:
    """Refuse a key that would leave its store or could not be stored faithfully.

    Parameters
    ----------
    key
        Raw, relative to the store, with `/` between parts.
    undecodable
        Whether bytes that are no UTF-8 may stand in it as surrogates (PEP 383), as they do in names of local files.

    Raises
    ------
    UnsafeKeyError
        If the key is empty, absolute, longer than 1,024 bytes, has a part that is empty, `.` or `..`, holds NUL, or
        is no Unicode text.
    """
    if not key:
        raise UnsafeKeyError("a key may not be empty")
    if "\0" in key:
        raise UnsafeKeyError(f"{printable(key)}: a key may not hold NUL")
    if key.startswith("/"):
        raise UnsafeKeyError(f"{printable(key)}: a key may not be absolute")
    if not _FORBIDDEN_PARTS.isdisjoint(key.split("/")):
        raise UnsafeKeyError(f"{printable(key)}: a key may not have a part that is empty, '.' or '..'")
    if len(_encode(key, undecodable=undecodable)) > MAX_KEY_BYTES:
        raise UnsafeKeyError(f"{printable(key[:64])}...: a key may not be longer than {MAX_KEY_BYTES} bytes")


def check_prefix(prefix: str, *, undecodable: bool = False) -> None:
    """Refuse a prefix that no key may begin with. The prefix is plain text and may end anywhere in a part.

    Raises
    ------
    UnsafeKeyError
        As `check_key`; the empty prefix is every key's.
    """
    if not prefix:
        return
    folders, _, _ = prefix.rpartition("/")
    if folders or prefix.startswith("/"):
        check_key(folders, undecodable=undecodable)
    if "\0" in prefix:
        raise UnsafeKeyError(f"{printable(prefix)}: a key may not hold NUL")
    if len(_encode(prefix, undecodable=undecodable)) > MAX_KEY_BYTES:
        raise UnsafeKeyError(f"{printable(prefix[:64])}...: a key may not be longer than {MAX_KEY_BYTES} bytes")


def is_text(key: str) -> bool:
    r"""Whether a key is Unicode text, so that it can stand in an event and in a database.

    A local file's name need not be: `b"caf\xe9.dcm"` is listed as `"caf\udce9.dcm"` (PEP 383) and can be read by that
    key, but JSON in UTF-8 cannot hold it.
    """
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(key: str) -> str:
    r"""Write a key so that every terminal and log can hold it: what is no text becomes `\udcXX`, controls `\xXX`."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 0x7F
        else f"\\x{ord(character):02x}"
        for character in key
    )


def _encode(key: str, *, undecodable: bool) -> bytes:
    try:
        return key.encode("utf-8", "surrogateescape" if undecodable else "strict")
    except UnicodeEncodeError:
        raise UnsafeKeyError(f"{printable(key)}: a key must be Unicode text") from None
