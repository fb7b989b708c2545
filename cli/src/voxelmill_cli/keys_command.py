"""`voxelmill keys create|list|revoke`: their options, and how they answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from voxelmill_cli.console import cell, say
from voxelmill_cli.options import DEFAULT_DATA, DataOption, JsonOption

keys_app = typer.Typer(
    name="keys", no_args_is_help=True, help="API keys of the gateway: make one, list them, revoke one.",
    rich_markup_mode=None,
)  # fmt: skip


class RoleName(StrEnum):
    """The roles; each may also do what those before it may."""

    VIEWER = "viewer"
    UPLOADER = "uploader"
    OPERATOR = "operator"
    ADMIN = "admin"


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="what it is for; it stands in the audit trail")],
    role: Annotated[RoleName, typer.Option("--role", help="what it may do")] = RoleName.VIEWER,
    project: Annotated[
        list[str] | None, typer.Option("--project", help="whose data it opens; may be repeated [default: all]")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="until when: 12h, 90d, or 2027-01-31 [default: until revoked]")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: it is stored nowhere and cannot be shown again."""
    from voxelmill_cli import keys  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, call_sync, out, print_json  # noqa: PLC0415 - app imports this module
    from voxelmill_gateway.access.callers import Role  # noqa: PLC0415 - as above

    until = call_sync(keys.read_expiry, expires) if expires is not None else None
    projects = frozenset(project) if project else None
    made = call(keys.create(data, name, Role.of(role.value), projects, until))
    if as_json:
        print_json(made)
        return
    say(out, made["key"])
    say(out, f"{_rights(made)}; keep it now: it cannot be shown again. Send it as X-API-Key")


@keys_app.command("list")
def list_command(data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """List the keys, newest first, also those that expired or were revoked."""
    from voxelmill_cli import keys  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - app imports this module

    found: list[dict[str, Any]] = call(keys.everything(data))
    if as_json:
        print_json({"keys": found})
        return
    if not found:
        say(out, "no API keys; `voxelmill keys create NAME` makes one")
        return
    table = Table(
        Column("key", no_wrap=True), "name", "rights", "made", "by", "last used", "ends", box=None, pad_edge=False
    )
    for key in found:
        ends = f"revoked {key['revoked']}" if key["revoked"] else key["expires"] or "-"
        row = (
            key["key_id"],
            key["name"],
            _rights(key),
            key["created"],
            key["created_by"],
            key["last_used"] or "-",
            ends,
        )
        table.add_row(*map(cell, row))
    out.print(table)


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="its id, as `voxelmill keys list` names it")],
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Let a key be refused from now on."""
    from voxelmill_cli import keys  # noqa: PLC0415 - a wrong option or `--help` is answered at once
    from voxelmill_cli.app import call, out, print_json  # noqa: PLC0415 - app imports this module

    key = call(keys.revoke(data, key_id))
    if as_json:
        print_json(key)
    else:
        say(out, f"{key['name']} ({key['key_id']}) is revoked since {key['revoked']}")


def _rights(key: dict[str, Any]) -> str:
    return f"{key['role']} of {'all projects' if key['projects'] is None else ', '.join(key['projects'])}"
