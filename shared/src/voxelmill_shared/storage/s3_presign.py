"""Addresses by which somebody without credentials reads or writes one object for a while: SigV4 in the query.

AWS's library makes one in half a millisecond, and nothing else runs meanwhile; a folder of a thousand files asks for a
thousand. Here the key is derived once for all of them. After the Amazon S3 API Reference, "Authenticating Requests:
Using Query Parameters (AWS Signature Version 4)"; a test holds every address to that of AWS's library.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

LONGEST = timedelta(days=7)
"""Amazon S3 API Reference, the same page."""
_ALGORITHM = "AWS4-HMAC-SHA256"


def check_duration(expires: timedelta) -> None:
    """Refuse a duration that no address can have.

    Raises
    ------
    ValueError
        If it is less than a second or more than seven days.
    """
    if not timedelta(seconds=1) <= expires <= LONGEST:
        raise ValueError(f"{expires}: such an address lasts from a second to seven days")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs addresses below one bucket at one moment.

    Parameters
    ----------
    base
        The address of the bucket, without a query: `https://host/bucket`, or `https://bucket.host`.
    access_key, secret_key, token
        The credentials; `token` is empty for those that last.
    region
        The region that the server goes by.
    now
        When the addresses begin to hold, in UTC.
    expires
        How long they do.
    """

    base: str
    access_key: str
    secret_key: str
    token: str
    region: str
    now: datetime
    expires: timedelta

    def address(
        self, method: str, key: str, *, query: Mapping[str, str] | None = None, length: int | None = None
    ) -> str:
        """Make the address of one request.

        Parameters
        ----------
        method
            `GET`, `PUT`.
        key
            The whole key, as the bucket knows it.
        query
            Further parameters, `partNumber` and `uploadId` say.
        length
            The Content-Length that the request must have, in bytes; None: any.
        """
        parts = urlsplit(self.base)
        path = f"{parts.path.rstrip('/')}/{quote(key, safe='/~')}"
        headers = {"host": parts.netloc} | ({} if length is None else {"content-length": str(length)})
        signed = ";".join(sorted(headers))
        day, moment = self.now.strftime("%Y%m%d"), self.now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{day}/{self.region}/s3/aws4_request"
        asked = {
            **(query or {}),
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(int(self.expires.total_seconds())),
            "X-Amz-SignedHeaders": signed,
            **({"X-Amz-Security-Token": self.token} if self.token else {}),
        }
        line = "&".join(
            sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in asked.items())
        )
        canonical = "\n".join(
            [
                method,
                path,
                line,
                *(f"{name}:{headers[name]}" for name in sorted(headers)),
                "",
                signed,
                "UNSIGNED-PAYLOAD",
            ]
        )
        said = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(self._key(day), said.encode(), hashlib.sha256).hexdigest()
        return f"{parts.scheme}://{parts.netloc}{path}?{line}&X-Amz-Signature={signature}"

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for word in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        return key
