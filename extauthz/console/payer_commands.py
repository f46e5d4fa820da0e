"""The commands about payers in the store: parse, call, print."""

# The others start faster without gRPC and rich, so each command imports what it needs.
# ruff: noqa: PLC0415

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import click

from extauthz.console.inputs import Signature
from extauthz.console.key_commands import keys
from extauthz.console.parameters import FILE, NumberType, json_option, print_json, speaks_to_a_server
from extauthz.console.payer_parameters import (
    Pairs,
    asked,
    fields_argument,
    given,
    limit_option,
    show,
    show_list,
    signed,
    tell,
)
from extauthz.console.target import Target

LOGGED, LOGGED_MAX = 100, 1000
# How often an import tells how far it is.
TOLD_EVERY = 10_000


@click.group()
def payers() -> None:
    """Write teams, users and other payers into the store (`directory: store`), and see who changed what."""


@payers.command("put")
@click.argument("scope")
@fields_argument
@signed
def payers_put(target: Target, signature: Signature, *, scope: str, fields: Pairs, as_json: bool) -> None:
    """Write the payer SCOPE with these fields, and no others.

    SCOPE is team:ID, member:TEAM/USER, user:ID, org:ID, project:ID, tag:NAME or end_user:ID, FIELDs are those of the
    configuration: payers put team:research max_budget=500 budget_duration=1mo 'models=[gpt-4o]'
    """
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
    from extauthz.console import payers as console

    request = pb.PutPayerRequest(
        scope=scope, fields=console.to_struct(given(fields)), who=signature.who, change_id=signature.change_id
    )
    tell(asked(target, "PutPayer", request, pb.ChangePayerResponse), "written", as_json=as_json)


@payers.command("delete")
@click.argument("scope")
@signed
def payers_delete(target: Target, signature: Signature, *, scope: str, as_json: bool) -> None:
    """Forget the payer SCOPE. What it spent stays in the books."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    request = pb.DeletePayerRequest(scope=scope, who=signature.who, change_id=signature.change_id)
    tell(asked(target, "DeletePayer", request, pb.ChangePayerResponse), "deleted", as_json=as_json)


@payers.command("show")
@click.argument("scope")
@json_option
@speaks_to_a_server
def payers_show(target: Target, *, scope: str, as_json: bool) -> None:
    """Show the payer SCOPE, such as team:research."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    show(asked(target, "GetPayer", pb.GetPayerRequest(scope=scope), pb.GetPayerResponse).payer, as_json=as_json)


@payers.command("list")
@click.argument("kind", default="")
@limit_option
@json_option
@speaks_to_a_server
def payers_list(target: Target, *, kind: str, limit: float, as_json: bool) -> None:
    """List payers, all but keys or those of one KIND, such as `team`."""
    from extauthz.console import payers as console
    from extauthz.console.connection import ask_once

    found, total = ask_once(target, lambda server: console.listed_payers(server, kind, int(limit)))
    show_list(found, total, console.show_payers, as_json=as_json)


@payers.command("import")
@click.argument("path", type=FILE, metavar="FILE")
@signed
def payers_import(target: Target, signature: Signature, *, path: Path, as_json: bool) -> None:
    """Write all keys and payers of FILE into the store: a configuration, or a list of keys, of any length.

    It goes in steps of 250, each all or none. The same command with the same --change-id goes on where it broke off.
    """
    from extauthz.console import payers as console
    from extauthz.console.connection import ask_once
    from extauthz.console.payer_files import PayerFile

    def told(count: int) -> None:
        if count % TOLD_EVERY == 0:
            click.echo(f"{count:,} written", err=True)

    with path.open(encoding="utf-8") as file:
        found = PayerFile(path, os.environ).read(file)
        count = ask_once(
            target,
            lambda server: console.import_payers(server, found, signature.who, signature.change_id, told),
        )
    if as_json:
        print_json({"payers": count, "change_id": signature.change_id})
    else:
        click.echo(f"{count:,} payers are in the store")


@payers.command("export")
@click.option("--output", type=FILE, help="Write to this file instead of standard output.")
@speaks_to_a_server
def payers_export(target: Target, *, output: Path | None) -> None:
    """Write all keys and payers of the store as a list that `payers import` reads; keys by their SHA-256 alone."""
    from extauthz.console import payers as console
    from extauthz.console.connection import ask_once

    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(output.open("w", encoding="utf-8"))
        count = ask_once(target, lambda server: console.export_payers(server, lambda line: click.echo(line, file=file)))
    click.echo(f"{count:,} payers are written", err=True)


@payers.command("log")
@click.option("--limit", type=NumberType(1, LOGGED_MAX), default=LOGGED, show_default=True, help="How many at most.")
@json_option
@speaks_to_a_server
def payers_log(target: Target, *, limit: float, as_json: bool) -> None:
    """Show who changed which keys and payers, the latest first."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
    from extauthz.console import payers as console
    from extauthz.console.documents import document

    changes = asked(target, "ListChanges", pb.ListChangesRequest(limit=int(limit)), pb.ListChangesResponse).changes
    if as_json:
        print_json([document(change) for change in changes])
    else:
        console.show_changes(changes)


DIRECTORY_COMMANDS: tuple[click.Command, ...] = (keys, payers)
