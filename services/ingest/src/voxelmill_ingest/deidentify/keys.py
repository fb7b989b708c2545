"""The secrets of a project, and what is made from them: pseudonyms, new UIDs, shifts of dates.

All of it is a function of the key, the project and the original value alone: replicas agree without asking each other,
a second run gives the same, and nobody without the key can try which original gives which pseudonym.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import uuid
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from voxelmill_shared.errors import VoxelmillError

_NONCE_BYTES: Final = 12
"""NIST SP 800-38D 5.2.1.1."""
LEAST_DAYS: Final = 30
MOST_DAYS: Final = 3650
"""Dates go back by at least a month and at most ten years: forwards they could come to lie in the future."""


class SealBrokenError(VoxelmillError):
    """What was sealed does not open with this key, or was changed."""


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What the child process needs; it can make pseudonyms and cannot open what is kept."""

    uids: bytes
    patients: bytes
    shifts: bytes

    def uid(self, original: str) -> str:
        """Return the UID that stands for another one: a UUID as a decimal number under 2.25 (PS3.5 B.2)."""
        digest = bytearray(_mac(self.uids, original.strip())[:16])
        digest[6] = digest[6] & 0x0F | 0x80  # RFC 9562 5.8: version 8, bits of the maker's choice
        digest[8] = digest[8] & 0x3F | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"

    def pseudonym(self, patient: str) -> str:
        """Return the name and number that a patient has in the copies."""
        return "VM" + base64.b32encode(_mac(self.patients, patient)[:10]).decode()

    def shift_days(self, patient: str) -> int:
        """Return by how many days a patient's dates are moved: always the same, always back."""
        number = int.from_bytes(_mac(self.shifts, patient)[:8])
        return -(LEAST_DAYS + number % (MOST_DAYS - LEAST_DAYS + 1))


@dataclass(frozen=True, slots=True, repr=False)
class ProjectKeys:
    """The keys of one project. They are derived from the installation's key; a project tells nothing about another."""

    project: str
    secrets: Secrets
    _lookup: bytes
    _sealing: bytes

    @classmethod
    def derive(cls, key: str, project: str) -> ProjectKeys:
        """Derive a project's keys from the text that was set (HKDF's expansion, RFC 5869 2.3, with HMAC-SHA-256)."""
        root = hmac.digest(b"voxelmill de-identification", key.strip().encode(), hashlib.sha256)

        def one(purpose: str) -> bytes:
            return _mac(root, f"{purpose}\0{project}\x01")

        secrets = Secrets(one("uids"), one("patients"), one("shifts"))
        return cls(project, secrets, one("lookup"), one("sealing"))

    def lookup(self, kind: str, original: str) -> str:
        """Return the name by which an original is found again in the mapping, which does not tell what it is."""
        return _mac(self._lookup, f"{kind}\0{original}").hex()

    def place(self, address: str) -> str:
        """Return the name that the copy of an object has: it does not tell the object's key, which may hold names."""
        return self.lookup("object", address)[:32]

    def seal(self, content: dict[str, Any], name: str) -> bytes:
        """Encrypt what is kept (AES-256-GCM), bound to the name that it is kept under."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._sealing).encrypt(nonce, json.dumps(content).encode(), name.encode())

    def open(self, sealed: bytes, name: str) -> dict[str, Any]:
        """Decrypt what is kept.

        Raises
        ------
        SealBrokenError
            If the key is another one, or the content or its name was changed.
        """
        try:
            plain = AESGCM(self._sealing).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise SealBrokenError(f"{name}: cannot be opened with this key") from None
        opened: dict[str, Any] = json.loads(plain)
        return opened


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
