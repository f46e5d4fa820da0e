"""The commands about keys in the store: parse, call, print."""

# The others start faster without gRPC and rich, so each command imports what it needs.
# ruff: noqa: PLC0415

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from extauthz.console.inputs import KeyFilter, Signature
from extauthz.console.parameters import json_option, print_json, speaks_to_a_server
from extauthz.console.payer_parameters import (
    Pairs,
    PeriodType,
    asked,
    fields_argument,
    given,
    key_argument,
    limit_option,
    show,
    show_list,
    signed,
    tell,
)
from extauthz.console.target import Target

if TYPE_CHECKING:
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

GRACE = "24h"


@click.group()
def keys() -> None:
    """Create, show, rotate, block and revoke the keys in the store (`directory: store`).

    KEY is the SHA-256 of a key, its alias, or os.environ/NAME: the variable that has the key, which is not sent.
    """


@keys.command("create")
@fields_argument
@signed
def keys_create(target: Target, signature: Signature, *, fields: Pairs, as_json: bool) -> None:
    """Make a key with these fields, and print it, this once.

    FIELDs are those of a key in the configuration: team=research key_alias=ana-laptop max_budget=50 budget_duration=1mo
    """
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
    from extauthz.console import payers as console

    request = pb.CreateKeyRequest(
        fields=console.to_struct(given(fields)), who=signature.who, change_id=signature.change_id
    )
    _tell_issued(asked(target, "CreateKey", request, pb.IssueKeyResponse), signature, as_json=as_json)


@keys.command("rotate")
@key_argument
@click.option(
    "--grace",
    type=PeriodType(),
    default=GRACE,
    show_default=True,
    help="How long the old key still works; 0: not at all.",
)
@signed
def keys_rotate(target: Target, signature: Signature, *, name: str, grace: float, as_json: bool) -> None:
    """Make a key in the place of KEY, with its fields and counters, and print it, this once."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    request = pb.RotateKeyRequest(key=name, grace_seconds=grace, who=signature.who, change_id=signature.change_id)
    _tell_issued(asked(target, "RotateKey", request, pb.IssueKeyResponse), signature, as_json=as_json)


@keys.command("update")
@key_argument
@fields_argument
@signed
def keys_update(target: Target, signature: Signature, *, name: str, fields: Pairs, as_json: bool) -> None:
    """Change fields of KEY; one without a value (`team=`) is taken away, others stay."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb
    from extauthz.console import payers as console

    request = pb.UpdateKeyRequest(
        key=name, fields=console.to_struct(given(fields)), who=signature.who, change_id=signature.change_id
    )
    tell(asked(target, "UpdateKey", request, pb.ChangePayerResponse), "updated", as_json=as_json)


@keys.command("block")
@key_argument
@signed
def keys_block(target: Target, signature: Signature, *, name: str, as_json: bool) -> None:
    """Refuse KEY from now on, and those that it replaced."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    request = pb.BlockKeyRequest(key=name, who=signature.who, change_id=signature.change_id)
    tell(asked(target, "BlockKey", request, pb.ChangePayerResponse), "blocked", as_json=as_json)


@keys.command("unblock")
@key_argument
@signed
def keys_unblock(target: Target, signature: Signature, *, name: str, as_json: bool) -> None:
    """Let KEY in again, with those that it replaced."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    request = pb.UnblockKeyRequest(key=name, who=signature.who, change_id=signature.change_id)
    tell(asked(target, "UnblockKey", request, pb.ChangePayerResponse), "unblocked", as_json=as_json)


@keys.command("revoke")
@key_argument
@signed
def keys_revoke(target: Target, signature: Signature, *, name: str, as_json: bool) -> None:
    """Forget KEY, and those that it replaced: they are unknown from now on. What they spent stays in the books."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    request = pb.RevokeKeyRequest(key=name, who=signature.who, change_id=signature.change_id)
    tell(asked(target, "RevokeKey", request, pb.ChangePayerResponse), "revoked", as_json=as_json)


@keys.command("show")
@key_argument
@json_option
@speaks_to_a_server
def keys_show(target: Target, *, name: str, as_json: bool) -> None:
    """Show what is known of KEY."""
    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

    show(asked(target, "GetKey", pb.GetKeyRequest(key=name), pb.GetKeyResponse).payer, as_json=as_json)


@keys.command("list")
@click.option("--team", default="", help="Only keys of this team.")
@click.option("--user", default="", help="Only keys of this user.")
@click.option("--organization", default="", help="Only keys that name this organization.")
@click.option("--project", default="", help="Only keys of this project.")
@limit_option
@json_option
@speaks_to_a_server
def keys_list(
    target: Target, *, team: str, user: str, organization: str, project: str, limit: float, as_json: bool
) -> None:
    """List keys, by their hashes."""
    from extauthz.console import payers as console
    from extauthz.console.connection import ask_once

    wanted = KeyFilter(team, user, organization, project, int(limit))
    found, total = ask_once(target, lambda server: console.listed_keys(server, wanted))
    show_list(found, total, console.show_keys, as_json=as_json)


def _tell_issued(answer: pb.IssueKeyResponse, signature: Signature, *, as_json: bool) -> None:
    """Print a key on its own, and on standard error what to know about it; status 1 where there is none to print."""
    from extauthz.console import payers as console
    from extauthz.console.documents import document

    if as_json:
        print_json(document(answer))
    elif answer.api_key:
        click.echo(answer.api_key)
    if not as_json:
        click.echo(console.of_issued(answer, signature.change_id), err=True)
    sys.exit(0 if answer.changed else 1)
