"""What the commands about keys and payers take, and how they call and print."""

# The others start faster without gRPC and rich, so each command imports what it needs.
# ruff: noqa: PLC0415

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from extauthz.console.inputs import Signature
from extauthz.console.parameters import (
    NumberType,
    change_id_option,
    json_option,
    print_json,
    speaks_to_a_server,
    who_option,
)
from extauthz.console.target import Target

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from extauthz._proto.extauthz.diagnostics.v1 import directory_pb2 as pb

LISTED, LISTED_MAX = 1000, 10_000_000
GRACE_S_MAX = 366 * 86_400

P = ParamSpec("P")
M = TypeVar("M", bound="Message")
Fields = Mapping[str, object]
Pairs = tuple[tuple[str, object], ...]


class FieldType(click.ParamType[tuple[str, object]]):
    """Reads FIELD=VALUE, the value as in the configuration; an empty one is none."""

    name = "FIELD=VALUE"

    def convert(
        self, value: str | tuple[str, object], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, object]:
        """Read it, or fail with an example."""
        from extauthz.config.source import Mistakes, plain, read_list

        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        mistakes = Mistakes(Path())
        items = plain(read_list(f"- {text}", mistakes)) if equals and name else []
        if mistakes or not isinstance(items, list) or len(items) != 1:
            self.fail(
                "write FIELD=VALUE, by the names of the configuration, such as max_budget=50, budget_duration=1mo or "
                "'models=[gpt-4o, local-llama]'",
                param,
                ctx,
            )
        return name.strip(), items[0]


class KeyNameType(click.ParamType[str]):
    """Reads which key is meant. One that is named as itself, by os.environ/NAME, is hashed here."""

    name = "KEY"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give its SHA-256 or its alias, or fail where the variable is not set."""
        from extauthz.config.payers import hashed
        from extauthz.config.source import ENVIRONMENT_PREFIX

        if not value.startswith(ENVIRONMENT_PREFIX):
            return value
        variable = value.removeprefix(ENVIRONMENT_PREFIX)
        if variable not in os.environ:
            self.fail(f"the environment variable {variable} is not set", param, ctx)
        return hashed(os.environ[variable])


class PeriodType(click.ParamType[float]):
    """Reads how long something lasts, in seconds; 0 is no time."""

    name = "DURATION"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with an example."""
        from extauthz.domain.windows import UNIT_SECONDS, parse_duration

        if isinstance(value, float):
            return value
        if value == "0":
            return 0.0
        try:
            duration = parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 30m, 24h or 7d, or 0 for none", param, ctx)
        seconds = duration.count * UNIT_SECONDS[duration.unit]
        if seconds > GRACE_S_MAX:
            self.fail(f"{value} is longer than a year: write a shorter time", param, ctx)
        return float(seconds)


fields_argument = click.argument("fields", type=FieldType(), nargs=-1, metavar="[FIELD=VALUE]...")
key_argument = click.argument("name", type=KeyNameType(), metavar="KEY")
limit_option = click.option(
    "--limit", type=NumberType(1, LISTED_MAX), default=LISTED, show_default=True, help="How many at most."
)


def signed(command: Callable[Concatenate[Target, Signature, P], None]) -> Callable[..., None]:
    """Add what every change is told, and pass it on after the server."""

    @functools.wraps(command)
    def with_signature(target: Target, /, *args: P.args, **kwargs: P.kwargs) -> None:
        who, change_id = str(kwargs.pop("who")), kwargs.pop("change_id")
        command(target, Signature(who, str(change_id or uuid.uuid4().hex)), *args, **kwargs)

    return who_option(change_id_option(json_option(speaks_to_a_server(with_signature))))


def given(fields: Pairs) -> Fields:
    """Give fields by their names, each given once."""
    names = [name for name, _ in fields]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{name} is given twice: keep one")
    return dict(fields)


def asked(target: Target, rpc: str, request: Message, answer: type[M]) -> M:
    """Call an RPC of Directory, and give its answer."""
    from extauthz.console import payers as console
    from extauthz.console.connection import ask_once

    return ask_once(target, lambda server: console.ask(server, rpc, request, answer))


def tell(answer: pb.ChangePayerResponse, what: str, *, as_json: bool) -> None:
    """Print what became of a payer."""
    from extauthz.console import payers as console
    from extauthz.console.documents import document

    if as_json:
        print_json(document(answer))
    else:
        console.show_change(answer, what)


def show(payer: pb.Payer, *, as_json: bool) -> None:
    """Print one payer."""
    from extauthz.console import payers as console
    from extauthz.console.documents import document

    if as_json:
        print_json(document(payer))
    else:
        console.show_payer(payer)


def show_list(
    found: Sequence[pb.Payer], total: int, show: Callable[[Sequence[pb.Payer]], None], *, as_json: bool
) -> None:
    """Print a list of payers, and on standard error that it has more."""
    from extauthz.console import payers as console
    from extauthz.console.documents import document

    if as_json:
        print_json([document(payer) for payer in found])
    else:
        show(found)
    if cut_off := console.cut_off(len(found), total):
        click.echo(cut_off, err=True)
