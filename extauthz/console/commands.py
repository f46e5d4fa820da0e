"""The commands that speak to a running server: parse, call, print."""

# The others start faster without gRPC and rich, so each command imports what it needs.
# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import functools
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Concatenate, ParamSpec

import click

from extauthz.console.inputs import Amendment, Caller, DecisionFilter, Question, ReservationFilter
from extauthz.console.parameters import (
    AMOUNT,
    PAIR,
    NumberType,
    change_id_option,
    json_option,
    key_of,
    print_json,
    speaks_to_a_server,
    text_of,
    who_option,
)
from extauthz.console.target import Target
from extauthz.domain.verdict import Reason, Word

if TYPE_CHECKING:
    from extauthz._proto.extauthz.diagnostics.v1.diagnostics_pb2 import WatchDecisionsResponse
    from extauthz.console.budgets import Change

PERCENT = 100
SHARE_MIN = 0.000_001
PERCENT_MAX = 1_000_000
AGE_MAX_S = 10 * 365 * 86_400
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.2, 3600
LEVELS = ("debug", "info", "warning", "error")

P = ParamSpec("P")


@click.group()
def budgets() -> None:
    """Show how budgets stand, and change them without a restart."""


@budgets.command("list")
@click.argument("prefix", default="")
@click.option(
    "--used", type=NumberType(0, PERCENT_MAX), default=0, metavar="PERCENT", help="Only where so much is spent or held."
)
@json_option
@speaks_to_a_server
def budgets_list(target: Target, *, prefix: str, used: float, as_json: bool) -> None:
    """List budgets, all or those of scopes that begin with PREFIX, such as `team:`."""
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once

    found = ask_once(target, lambda server: console.listed(server, prefix, used / PERCENT))
    if as_json:
        print_json([console.to_listed(budget) for budget in found])
    else:
        console.show(found)


@budgets.command("get")
@click.argument("scope")
@json_option
@speaks_to_a_server
def budgets_get(target: Target, *, scope: str, as_json: bool) -> None:
    """Show the budgets of SCOPE, such as `team:research` or `member:research/ana`."""
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once
    from extauthz.console.documents import document

    found = ask_once(target, lambda server: console.of_scope(server, scope))
    if as_json:
        print_json([document(budget) for budget in found])
    else:
        console.show(found)


# What every change is told, by the names of `_amendment`.
_AMENDMENT = {
    "scope": click.argument("scope"),
    "window": click.option(
        "--window", default="", metavar="W", help="Which budget of the scope, as lists show it: 24h, 1d/tokens."
    ),
    "who": who_option,
    "change_id": change_id_option,
}


def _changes_a_budget(command: Callable[Concatenate[Target, Amendment, P], None]) -> Callable[..., None]:
    """Add what every change is told, and pass it on after the server."""

    @functools.wraps(command)
    def with_amendment(target: Target, /, *args: P.args, **kwargs: P.kwargs) -> None:
        amendment = _amendment(**{name: kwargs.pop(name) for name in _AMENDMENT})  # type: ignore[arg-type]  # click's
        command(target, amendment, *args, **kwargs)

    decorated = json_option(speaks_to_a_server(with_amendment))
    for option in reversed(_AMENDMENT.values()):
        decorated = option(decorated)
    return decorated


def _amendment(scope: str, window: str, who: str, change_id: str | None) -> Amendment:
    return Amendment(scope, window, who, change_id or uuid.uuid4().hex)


@budgets.command("set")
@_changes_a_budget
@click.argument("limit", type=AMOUNT)
def budgets_set(target: Target, amendment: Amendment, *, limit: float, as_json: bool) -> None:
    """Put LIMIT in the place of the configured limit, for every replica, until `budgets unset`.

    It is in USD, or in what the budget counts: tokens, requests.
    """
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once

    change = ask_once(target, lambda server: console.set_limit(server, amendment, limit))
    _tell(change, as_json=as_json)


@budgets.command("unset")
@_changes_a_budget
def budgets_unset(target: Target, amendment: Amendment, *, as_json: bool) -> None:
    """Let the configured limit hold again."""
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once

    _tell(ask_once(target, lambda server: console.set_limit(server, amendment, None)), as_json=as_json)


@budgets.command("reset")
@_changes_a_budget
def budgets_reset(target: Target, amendment: Amendment, *, as_json: bool) -> None:
    """Forget what was spent in the current window. What is held stays held."""
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once

    _tell(ask_once(target, lambda server: console.reset(server, amendment)), as_json=as_json)


@budgets.command("grant")
@_changes_a_budget
@click.argument("amount", type=AMOUNT)
def budgets_grant(target: Target, amendment: Amendment, *, amount: float, as_json: bool) -> None:
    """Raise the limit of the current window by AMOUNT; the next window has the usual limit.

    It is in USD, or in what the budget counts: tokens, requests.
    """
    from extauthz.console import budgets as console
    from extauthz.console.connection import ask_once

    if amount == 0:
        raise click.BadParameter("a grant is above 0", param_hint="AMOUNT")
    _tell(ask_once(target, lambda server: console.grant(server, amendment, amount)), as_json=as_json)


def _tell(change: Change, *, as_json: bool) -> None:
    from extauthz.console.budgets import show_change

    if as_json:
        print_json(change.document())
    else:
        show_change(change)


@click.group()
def reservations() -> None:
    """Show where money is held, and end a reservation by hand."""


@reservations.command("list")
@click.option("--scope", default="", help="Only those that hold money of this scope, such as team:research.")
@click.option("--model", default="", help="Only those of this model.")
@click.option(
    "--older", type=NumberType(0, AGE_MAX_S), default=0, metavar="SECONDS", help="Only those of at least this age."
)
@json_option
@speaks_to_a_server
def reservations_list(target: Target, *, scope: str, model: str, older: float, as_json: bool) -> None:
    """List open reservations, the oldest first."""
    from extauthz.console import reservations as console
    from extauthz.console.connection import ask_once
    from extauthz.console.documents import document

    answer = ask_once(target, lambda server: console.listed(server, ReservationFilter(scope, model, older)))
    if as_json:
        print_json([document(reservation) for reservation in answer.reservations])
    else:
        console.show(answer, scope)
    if cut_off := console.cut_off(answer):
        click.echo(cut_off, err=True)


@reservations.command("release")
@click.argument("id_", metavar="ID")
@json_option
@speaks_to_a_server
def reservations_release(target: Target, *, id_: str, as_json: bool) -> None:
    """End the open reservation ID with no cost; ID may also be what the client saw, `x-extauthz-reservation`.

    An answer that still ends is booked all the same. Exit status 1 when nothing was released.
    """
    from extauthz.console import reservations as console
    from extauthz.console.connection import ask_once

    released = ask_once(target, lambda server: console.release(server, id_))
    if as_json:
        print_json({"id": id_, "released": released})
    else:
        click.echo("released" if released else "nothing to release: it had ended before")
    sys.exit(0 if released else 1)


@click.command()
@click.option("--key-env", metavar="NAME", help="The environment variable that has the API key.")
@click.option("--key-sha256", metavar="HEX", help="Instead of the key: its SHA-256.")
@click.option("--key-alias", metavar="ALIAS", help="Instead of the key: its alias.")
@click.option("--method", help="POST where nothing is said.")
@click.option("--path", "path", help="/v1/chat/completions where nothing is said.")
@click.option("--model", help="Ask for this model with an empty chat, instead of --body.")
@click.option("--body", type=click.File("rb"), help="The file with the request's body; - is standard input.")
@click.option("--header", "headers", type=PAIR, multiple=True, help="A further header; may be said several times.")
@click.option("--context", type=PAIR, multiple=True, help="What Envoy's route says, such as extauthz.prune:on.")
@click.option("--check", type=click.File("rb"), help="Instead of all these: the file with a CheckRequest as JSON.")
@json_option
@speaks_to_a_server
def explain(
    target: Target,
    *,
    key_env: str | None,
    key_sha256: str | None,
    key_alias: str | None,
    method: str | None,
    path: str | None,
    model: str | None,
    body: BinaryIO | None,
    headers: tuple[tuple[str, str], ...],
    context: tuple[tuple[str, str], ...],
    check: BinaryIO | None,
    as_json: bool,
) -> None:
    """Tell why a request would be let through or refused now, and what that rests on. Reserves nothing."""
    from extauthz.console import explanations as console
    from extauthz.console.connection import ask_once
    from extauthz.console.documents import document

    caller = _caller(key_env, key_sha256, key_alias)
    if check is not None:
        if caller != Caller() or any((method, path, model, body, headers, context)):
            raise click.UsageError("--check says all about the request: leave the other options out")
        request = console.whole_request(text_of(check, "--check"))
    else:
        if body is not None and model is not None:
            raise click.UsageError("the body names the model: leave --model out")
        question = Question(
            caller=caller,
            method=method or "POST",
            path=path or "/v1/chat/completions",
            model=model or "",
            body="" if body is None else text_of(body, "--body"),
            headers=dict(headers),
            context=dict(context),
        )
        request = console.short_request(question)
    answer = ask_once(target, lambda server: console.explained(server, request))
    if as_json:
        print_json(document(answer))
    else:
        console.show(answer)


def _caller(key_env: str | None, key_sha256: str | None, key_alias: str | None) -> Caller:
    if sum(given is not None for given in (key_env, key_sha256, key_alias)) > 1:
        raise click.UsageError("--key-env, --key-sha256 and --key-alias are three ways to say the same: choose one")
    return Caller(key_of(key_env), key_sha256 or "", key_alias or "")


@click.command()
@click.option("--decision", "decisions", type=click.Choice([word.value for word in Word]), multiple=True)
@click.option("--reason", "reasons", type=click.Choice([reason.value for reason in Reason]), multiple=True, metavar="R")
@click.option("--scope", default="", help="Only requests that are counted on this scope, such as team:research.")
@click.option("--model", default="", help="Only this model, as it was asked for.")
@click.option(
    "--sample", type=NumberType(SHARE_MIN, 1), default=1, metavar="SHARE", help="Show this share of them, at most 1."
)
@json_option
@speaks_to_a_server
def watch(
    target: Target,
    *,
    decisions: tuple[str, ...],
    reasons: tuple[str, ...],
    scope: str,
    model: str,
    sample: float,
    as_json: bool,
) -> None:
    """Show the decisions of one server as they are made, a line each, until Ctrl-C.

    With --json each line is what `extauthz replay` reads.
    """
    from extauthz.console import decisions as console
    from extauthz.console.documents import document
    from extauthz.console.text import new_console

    screen = new_console()

    def tell(seen: WatchDecisionsResponse) -> None:
        if as_json:
            print_json(document(seen))
        else:
            console.show(screen, seen)

    def begun() -> None:
        click.echo(f"watching {target.address} until Ctrl-C", err=True)

    wanted = DecisionFilter(decisions, reasons, scope, model, sample)
    try:
        asyncio.run(console.watch(target, wanted, tell, begun))
    except KeyboardInterrupt:
        sys.exit(0)


@click.command()
@click.option(
    "--interval",
    type=NumberType(INTERVAL_MIN_S, INTERVAL_MAX_S),
    default=2,
    metavar="SECONDS",
    show_default=True,
    help="How often it looks.",
)
@click.option("--once", is_flag=True, help="Print one picture, of one interval, and end.")
@speaks_to_a_server
def top(target: Target, *, interval: float, once: bool) -> None:  # fmt: skip
    """Show load, decisions, held money, the most used budgets and the last refusals, until q or Ctrl-C."""
    from extauthz.console import top as console

    if not once and not sys.stdout.isatty():
        raise click.UsageError("standard output is no terminal: add --once")
    try:
        asyncio.run(console.show_once(target, interval) if once else console.show_live(target, interval))
    except KeyboardInterrupt:
        sys.exit(0)


@click.command()
@json_option
@speaks_to_a_server
def config(target: Target, *, as_json: bool) -> None:
    """Print the configuration in force as YAML, defaults included and secrets masked."""
    from extauthz.console import settings as console
    from extauthz.console.connection import ask_once
    from extauthz.console.documents import document

    answer = ask_once(target, console.configuration)
    if as_json:
        print_json(document(answer))
    else:
        click.echo(console.to_yaml(answer), nl=False)


@click.command("log-level")
@click.argument("level", type=click.Choice(LEVELS), required=False)
@json_option
@speaks_to_a_server
def log_level(target: Target, *, level: str | None, as_json: bool) -> None:
    """Change how much the server logs until it stops, or tell how much it does."""
    from extauthz.console import settings as console
    from extauthz.console.connection import ask_once

    now = ask_once(target, lambda server: console.log_level(server, level or ""))
    if as_json:
        print_json({"level": now})
    else:
        click.echo(now)


COMMANDS: tuple[click.Command, ...] = (budgets, reservations, explain, watch, top, config, log_level)
