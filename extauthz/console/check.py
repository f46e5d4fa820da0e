"""The command that makes a real Check: parse, call, print."""

# Help comes faster without gRPC and rich.
# ruff: noqa: PLC0415

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import BinaryIO

import click

from extauthz.console.inputs import Caller, Expectation, Question
from extauthz.console.parameters import (
    ADDRESS,
    FILE,
    PAIR,
    NumberType,
    json_option,
    key_of,
    print_json,
    text_of,
    told_plainly,
)
from extauthz.console.target import GATE_TOKEN_VARIABLE, ClientCertificate, Target, gate_token
from extauthz.domain.address import Address
from extauthz.domain.verdict import Word

SECONDS = 5
SECONDS_MIN, SECONDS_MAX = 0.1, 300
STATUS_MIN, STATUS_MAX = 200, 599
PATH = "/v1/chat/completions"


@click.command()
@click.option("--target", "address", type=ADDRESS, required=True, help="Where the server listens for Envoy.")
@click.option("--expect", type=click.Choice([Word.ALLOW.value, Word.DENY.value]), required=True)
@click.option("--status", type=click.IntRange(STATUS_MIN, STATUS_MAX), help="Expect this status too, such as 429.")
@click.option("--key-env", metavar="NAME", help="The environment variable that has the API key; else nobody asks.")
@click.option("--method", default="POST", show_default=True)
@click.option("--path", "path", default=PATH, show_default=True)
@click.option("--model", help="Ask for this model with an empty chat, instead of --body.")
@click.option("--body", type=click.File("rb"), help="The file with the request's body; - is standard input.")
@click.option("--header", "headers", type=PAIR, multiple=True, help="A further header; may be said several times.")
@click.option("--context", type=PAIR, multiple=True, help="What Envoy's route says, such as extauthz.prune:on.")
@click.option(
    "--token-env",
    metavar="NAME",
    help=f"The environment variable that has extauthz.token, instead of {GATE_TOKEN_VARIABLE}.",
)
@click.option("--ca", type=FILE, help="Speak TLS, and trust this CA (PEM).")
@click.option("--cert", type=FILE, help="Your certificate (PEM), where the server wants one.")
@click.option("--key", type=FILE, help="The key (PEM) of your certificate.")
@click.option(
    "--timeout",
    "seconds",
    type=NumberType(SECONDS_MIN, SECONDS_MAX),
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the server has to answer.",
)
@json_option
def check(
    *,
    address: Address,
    expect: str,
    status: int | None,
    key_env: str | None,
    method: str,
    path: str,
    model: str | None,
    body: BinaryIO | None,
    headers: tuple[tuple[str, str], ...],
    context: tuple[tuple[str, str], ...],
    token_env: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Make a real Check, as Envoy does, and tell whether the verdict is as expected.

    Nothing goes upstream, and what the Check held is released at once. Exit status 1 when the verdict is another, or
    when there is none.
    """
    from extauthz.console import verdicts as console

    if body is not None and model is not None:
        raise click.UsageError("the body names the model: leave --model out")
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    expected = Expectation(Word(expect), status)
    question = Question(
        caller=Caller(key_of(key_env)),
        method=method,
        path=path,
        model=model or "",
        body="" if body is None else text_of(body, "--body"),
        headers=dict(headers),
        context=dict(context),
    )
    with told_plainly():
        client = ClientCertificate(cert, key) if cert is not None and key is not None else None
        target = Target(address, gate_token(token_env, os.environ), ca, client)
        verdict = asyncio.run(console.checked(target, question, str(uuid.uuid4()), seconds))
    if as_json:
        print_json(verdict.document(expected))
    else:
        console.show(verdict, expected)
    sys.exit(0 if verdict.meets(expected) else 1)
