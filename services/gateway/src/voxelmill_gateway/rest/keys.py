"""API keys: making, listing and revoking them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, BaseModel, Field

from voxelmill_gateway.access.api_keys import NAME_PATTERN, ApiKey, KeyDescriptionError
from voxelmill_gateway.access.callers import InstallationAdmin, Role, RoleName
from voxelmill_gateway.gateway import Gate
from voxelmill_gateway.problems import Problem, not_found

router = APIRouter(tags=["keys"])


class KeyOut(BaseModel):
    """A key, without its secret."""

    key_id: str
    name: str
    role: RoleName
    projects: list[str] | None = Field(description="none: all")
    created: datetime
    created_by: str
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None = Field(description="to the minute")


class KeysOut(BaseModel):
    """Every key of the installation."""

    items: list[KeyOut]
    total: int
    next: None = None


class NewKey(BaseModel):
    """The key to make."""

    name: str = Field(pattern=NAME_PATTERN, description="what it is for")
    role: RoleName
    projects: list[str] | None = Field(
        None, min_length=1, max_length=1000, description="the projects that it opens; none: all"
    )
    expires: AwareDatetime | None = Field(None, description="until when it is taken; none: until it is revoked")


class NewKeyOut(KeyOut):
    """A key that was just made."""

    key: str = Field(description="what to send as X-API-Key or Authorization: Bearer; it is shown this once")


@router.get("/keys", operation_id="list_keys", summary="Every API key, newest first")
async def list_keys(gate: Gate, caller: InstallationAdmin) -> KeysOut:
    """List the keys, also those that expired or were revoked."""
    await gate.trail.record(caller, "read", detail="API keys")
    items = [KeyOut(**_fields(key)) for key in await gate.keys.everything()]
    return KeysOut(items=items, total=len(items))


@router.post("/keys", operation_id="create_key", summary="Make an API key", status_code=201)
async def create_key(new: NewKey, response: Response, gate: Gate, caller: InstallationAdmin) -> NewKeyOut:
    """Make a key; its text is in this answer and nowhere else."""
    projects = None if new.projects is None else frozenset(new.projects)
    try:
        key, text = await gate.keys.create(new.name, Role.of(new.role), projects, by=caller.who, expires=new.expires)
    except KeyDescriptionError as error:
        raise Problem(422, "No such key can be made", str(error)) from None
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = f"/keys/{key.key_id}"
    return NewKeyOut(**_fields(key), key=text)


@router.delete("/keys/{key_id}", operation_id="revoke_key", summary="Revoke an API key", status_code=204)
async def revoke_key(
    key_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")], gate: Gate, caller: InstallationAdmin
) -> None:
    """Let a key be refused from now on."""
    if await gate.keys.revoke(key_id, by=caller.who) is None:
        raise not_found(f"API key {key_id}")


def _fields(key: ApiKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "role": key.role.label,
        "projects": None if key.projects is None else sorted(key.projects),
        "created": key.created,
        "created_by": key.created_by,
        "expires": key.expires,
        "revoked": key.revoked,
        "last_used": key.last_used,
    }
