"""The store's administrative interface, by boto3; whatever it raises becomes one clear line."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_UNREACHABLE, CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxelmill_cli.bucket.target import BucketTarget

_UNKNOWN_THERE = frozenset({"NotImplemented", "MethodNotAllowed", "XNotImplemented", "UnsupportedOperation"})
_STRANGER = {
    "InvalidAccessKeyId": "the server does not know this access key",
    "InvalidClientTokenId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "this machine's clock and the server's differ too much",
    "ExpiredToken": "the credentials have expired",
}
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "403"})


class RefusedError(CommandError):
    """The server answered a request with an error. `code` is the server's word for it, `status` that of HTTP."""

    def __init__(self, line: str, code: str, status: int, exit_code: int = EXIT_INPUT_FAILED) -> None:
        super().__init__(line, exit_code)
        self.code = code
        self.status = status

    @property
    def unknown_there(self) -> bool:
        """Whether the server has no such operation."""
        return self.code in _UNKNOWN_THERE or self.status == 501

    @property
    def denied(self) -> bool:
        """Whether the server knows who asks, and refuses."""
        return self.code in _DENIED


class Administration:
    """The services around one bucket.

    Credentials and `AWS_ENDPOINT_URL` come from the environment in the ways that all AWS tools know; the region too,
    also from `AWS_REGION`, which boto3 does not read.
    """

    def __init__(self, target: BucketTarget) -> None:
        self.target = target
        self._session = boto3.Session()
        self.region = os.environ.get("AWS_REGION") or self._session.region_name or "us-east-1"
        self._clients: dict[str, Any] = {}

    @property
    def s3(self) -> Any:
        """The client for the bucket."""
        return self.client("s3")

    @property
    def endpoint(self) -> str:
        """The address of the store."""
        return str(self.s3.meta.endpoint_url)

    def client(self, service: str, endpoint: str | None = None) -> Any:
        """Give the client of a service; `endpoint` if it is not where the environment says."""
        if service not in self._clients:
            own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            config = Config(
                signature_version="s3v4" if service == "s3" else None,
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=5,
                read_timeout=30,
                s3={"addressing_style": "path" if own else "auto"},
                # The newer checksums are not understood by older servers (Ceph 16).
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            with asking("the credentials or the settings of AWS"):
                self._clients[service] = self._session.client(
                    service, region_name=self.region, endpoint_url=endpoint, config=config
                )
        return self._clients[service]

    def move(self, region: str) -> None:
        """Go to the bucket's region."""
        if region != self.region:
            self.close()
            self.region = region

    def close(self) -> None:
        """Let go of connections."""
        while self._clients:
            self._clients.popitem()[1].close()

    def look(self) -> dict[str, str]:
        """Return the headers of a HEAD of the bucket.

        Raises
        ------
        CommandError
            If there is no answer, no such bucket, or no right to see it.
        """
        bucket = self.target.bucket
        with asking(f"s3://{bucket}"):
            try:
                answer = self.s3.head_bucket(Bucket=bucket)
            except ClientError as error:
                metadata = error.response.get("ResponseMetadata", {})
                if metadata.get("HTTPStatusCode") == 404:
                    line = f"s3://{bucket}: there is no such bucket at {self.endpoint}; create it and run this again"
                    raise CommandError(line, EXIT_UNREACHABLE) from error
                raise
        headers: dict[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn whatever a request raises into a `CommandError` that names what was asked for."""
    try:
        yield
    except ClientError as error:
        # Ceph's answers to SNS requests are those of S3 in form, which boto3 leaves as they are.
        answer = error.response.get("Error") or error.response
        code, message = str(answer.get("Code", "unknown")), str(answer.get("Message") or "")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _STRANGER:
            raise RefusedError(f"{what}: {_STRANGER[code]}", code, status, EXIT_UNREACHABLE) from error
        if code in _DENIED:
            # A HEAD has no body that would tell wrong keys from a missing right.
            keys = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which " if code == "403" else "the credentials "
            line = f"{what}: access denied; {keys}need the right to call {error.operation_name}"
            raise RefusedError(line, code, status) from error
        line = f"{what}: the server refused {error.operation_name}: {code}{': ' if message else ''}{message}"
        raise RefusedError(_one_line(line), code, status) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        line = f"{what}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise CommandError(line, EXIT_UNREACHABLE) from error
    except (BotoCoreError, ValueError) as error:
        line = f"{what}: {_one_line(str(error))}; see AWS_ENDPOINT_URL and the other AWS_* variables"
        raise CommandError(line, EXIT_UNREACHABLE) from error


def _one_line(text: str) -> str:
    return " ".join(text.split())
