"""The settings of access: who is believed, from where, and how much they may ask for."""

from __future__ import annotations

from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.access.policy import is_loopback
from voxelmill_shared.projects import is_project
from voxelmill_shared.settings import SharedSettings

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""With a public key (RFC 7518, 3.1; RFC 8037). `none` and HS* are not among them: what checks must not also sign."""


class AccessSettings(SharedSettings):
    """Who may do what in the gateway."""

    gateway_auth: Literal["off", "on"] = Field(
        "off", description="off: everybody is admin, and the gateway listens on this machine alone"
    )
    gateway_oidc_issuer: str = Field("", description="the `iss` of tokens, https://…; empty: API keys alone")
    gateway_oidc_audience: str = Field("", description="the `aud` that a token must name")
    gateway_oidc_jwks_url: str = Field(
        "", description="where the issuer's public keys are; by default what its openid-configuration says"
    )
    gateway_oidc_algorithms: tuple[str, ...] = Field(
        ("RS256", "ES256"), min_length=1, description="JSON list of the signatures that are accepted"
    )
    gateway_oidc_who_claim: str = Field("sub", min_length=1, description="the claim that names the person")
    gateway_oidc_roles_claim: str = Field(
        "roles", min_length=1, description="the claim with the roles; realm_access.roles for one inside another"
    )
    gateway_oidc_projects_claim: str = Field(
        "projects", min_length=1, description="the claim with the projects; * in it: all"
    )
    gateway_oidc_roles: dict[str, str] = Field(
        default_factory=lambda: {str(role.label): str(role.label) for role in Role},
        description="JSON object from a role in the token to viewer, uploader, operator or admin",
    )
    gateway_oidc_default_projects: tuple[str, ...] = Field(
        (), description="JSON list of the projects of a token without that claim; by default none"
    )
    gateway_cookie_secure: bool = Field(
        False, description="whether the session's cookie needs https also where the request did not come by it"
    )
    gateway_session_seconds: PositiveInt = Field(8 * 3600, description="how long a browser stays signed in")
    gateway_hosts: tuple[str, ...] = Field(
        (),
        description="JSON list of the names that the gateway is called by; by default any, and loopback without auth",
    )
    gateway_cors_origins: tuple[str, ...] = Field(
        (), description="JSON list of the pages of others that may use the gateway, https://viewer.example.org"
    )
    gateway_rate_per_minute: NonNegativeInt = Field(
        30_000, description="how many requests of one caller are answered in a minute; 0: all"
    )
    gateway_failures_per_minute: PositiveInt = Field(
        30, description="how many wrong tokens and keys may come from one address in a minute"
    )
    gateway_body_bytes: PositiveInt = Field(8 << 20, description="the largest body of a request that is no upload")
    gateway_upload_bytes: PositiveInt = Field(64 << 30, description="the largest body of an upload")

    @field_validator("gateway_oidc_algorithms")
    @classmethod
    def _with_public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(ALGORITHMS):
            raise ValueError(f"{', '.join(sorted(unknown))}: may be of {', '.join(ALGORITHMS)}")
        return value

    @field_validator("gateway_oidc_roles")
    @classmethod
    def _to_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            Role.of(name)
        return value

    @field_validator("gateway_oidc_default_projects")
    @classmethod
    def _are_projects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not is_project(name):
                raise ValueError(f"{name!r} can name no project: 1 to 63 of a-z, 0-9 and -, or * for all")
        return value

    @field_validator("gateway_cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin or "*" in origin:
                raise ValueError(f"{origin!r}: write https://name or https://name:port, and nothing behind it")
        return value

    @field_validator("gateway_oidc_issuer", "gateway_oidc_jwks_url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))):
            raise ValueError("who can change what comes from there can sign in as anybody: write https://…")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.gateway_oidc_issuer and not self.gateway_oidc_audience:
            raise ValueError(
                "VOXELMILL_GATEWAY_OIDC_AUDIENCE is missing: without it a token for another application would do"
            )
        if self.gateway_oidc_jwks_url and not self.gateway_oidc_issuer:
            raise ValueError(
                "VOXELMILL_GATEWAY_OIDC_ISSUER is missing: name whose keys VOXELMILL_GATEWAY_OIDC_JWKS_URL has"
            )
        return self
