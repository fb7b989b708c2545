"""What an S3 server's answers, and their absence, mean to the rest of Voxelmill."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ResponseStreamingError

from voxelmill_shared.errors import ObjectMissingError, StoreUnavailableError, UnsafeKeyError
from voxelmill_shared.storage.keys import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN_STREAM = (aiohttp.ClientError, ConnectionError, TimeoutError, HTTPClientError, ResponseStreamingError)
"""What reading an answer's body raises when the connection breaks or falls silent."""

_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
_STRANGER = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken", "InvalidToken"}
)
_UNFIT = frozenset({"KeyTooLongError", "InvalidObjectName", "InvalidURI"})
_REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchUpload": "the server has dropped the upload",
    "403": "access denied (check the credentials and the bucket's policy)",
    "AccessDenied": "access denied (check the credentials and the bucket's policy)",
    "InvalidAccessKeyId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "this machine's clock and the server's differ too much",
    "ExpiredToken": "the credentials have expired",
    "PreconditionFailed": "the object was overwritten while it was read",
    "412": "the object was overwritten while it was read",
    "BadDigest": "the bytes were damaged on their way",
}


def is_missing(error: ClientError) -> bool:
    """Whether the server says that there is no such thing."""
    return error.response.get("Error", {}).get("Code") in _MISSING


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an answer; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_refused(error: BaseException | None) -> bool:
    """Whether the server knows who asks and refuses (403): a right is missing, or the object is archived."""
    if not isinstance(error, ClientError):
        return False
    return status_of(error) == 403 and error.response.get("Error", {}).get("Code") not in _STRANGER


@contextmanager
def answering(address: str, key: str) -> Iterator[None]:
    """Turn whatever a request raises into one of Voxelmill's own errors.

    Parameters
    ----------
    address
        The store, `s3://bucket/prefix`.
    key
        The object's key, or empty for the store as a whole.
    """
    name = f"{address}/{printable(key)}" if key else address
    try:
        yield
    except ClientError as error:
        if is_missing(error):
            raise ObjectMissingError(key) from error
        answer = error.response.get("Error", {})
        code = str(answer.get("Code", "unknown"))
        reason = _REASONS.get(code) or f"the server answered {code}: {answer.get('Message', '')}".rstrip(": ")
        if code in _UNFIT:
            raise UnsafeKeyError(f"{name}: the server cannot hold such a key ({code})") from error
        raise StoreUnavailableError(f"{name}: {reason}") from error
    except (BotoCoreError, *BROKEN_STREAM) as error:
        raise StoreUnavailableError(f"{name}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
