"""What the commands take: their types, and the options that all who speak to a server share."""

from __future__ import annotations

import functools
import getpass
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO, Concatenate, ParamSpec

import click

from extauthz.console.target import TOKEN_VARIABLE, ClientCertificate, Target, read_token
from extauthz.domain.address import Address, parse_address
from extauthz.domain.money import AMOUNT_NANOUSD_MAX
from extauthz.errors import ExtauthzError

ADMIN = "127.0.0.1:9192"
WHO_BYTES_MAX = 64
BODY_BYTES_MAX = 3 * 1024 * 1024

P = ParamSpec("P")


class AddressType(click.ParamType[Address]):
    """Reads host:port, so that a slip names the option and is a wrong usage."""

    name = "host:port"

    def convert(self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Read it, or fail with what to write instead."""
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PlaceType(click.ParamType[str]):
    """Reads the place of an entry in the journal."""

    name = "ID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it, or fail with an example."""
        if re.fullmatch(r"[0-9]{1,15}(-[0-9]{1,15})?", value) is None:
            self.fail(f"{value!r} is not the `at` of an entry, such as 1795000000000-0", param, ctx)
        return value


class AmountType(click.ParamType[float]):
    """Reads an amount, 0 or more, of whatever a budget counts."""

    name = "AMOUNT"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with what to write instead."""
        try:
            amount = Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount: write a number, such as 12.5", param, ctx)
        if not amount.is_finite() or not 0 <= amount <= AMOUNT_NANOUSD_MAX:
            self.fail(f"{value} is not an amount that a budget can have: write a number that is 0 or more", param, ctx)
        return float(amount)


class NumberType(click.ParamType[float]):
    """Reads a number between two bounds; `inf` and `nan` are none."""

    name = "NUMBER"

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with the bounds."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self._least <= number <= self._most:
            self.fail(f"{value!r} is not a number from {self._least:g} to {self._most:g}", param, ctx)
        return number


class PairType(click.ParamType[tuple[str, str]]):
    """Reads NAME:VALUE, as in a header. What was written is not repeated: it may be a key."""

    name = "NAME:VALUE"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Read it, or fail."""
        if isinstance(value, tuple):
            return value
        name, colon, rest = value.partition(":")
        if not colon or not name.strip():
            self.fail("write a name, a colon and a value, such as x-litellm-model:gpt-4o", param, ctx)
        return name.strip().lower(), rest.strip()


class WhoType(click.ParamType[str]):
    """Reads who changes something."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it, or fail where the journal has no room for it."""
        if not value or len(value.encode(errors="replace")) > WHO_BYTES_MAX:
            self.fail(f"write who you are, in at most {WHO_BYTES_MAX} bytes", param, ctx)
        return value


ADDRESS = AddressType()
PLACE = PlaceType()
AMOUNT = AmountType()
PAIR = PairType()
FILE = click.Path(path_type=Path, dir_okay=False)


def os_user() -> str:
    """Tell who types."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


who_option = click.option(
    "--who", type=WhoType(), default=os_user, show_default="you", help="Who, for the journal or the log."
)
change_id_option = click.option("--change-id", metavar="ID", help="Names the change: sent twice, it is made once.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

# Which server, by the names of `_target`.
_CONNECTION = {
    "admin": click.option(
        "--admin",
        type=ADDRESS,
        default=ADMIN,
        envvar="EXTAUTHZ_ADMIN",
        show_default=True,
        show_envvar=True,
        help="The admin port of the server.",
    ),
    "token_file": click.option(
        "--admin-token-file",
        "token_file",
        type=FILE,
        help=f"The file that has extauthz.admin_token, instead of the variable {TOKEN_VARIABLE}.",
    ),
    "ca": click.option("--admin-ca", "ca", type=FILE, help="Speak TLS, and trust this CA (PEM)."),
    "cert": click.option("--admin-cert", "cert", type=FILE, help="Your certificate (PEM), where the server wants one."),
    "key": click.option("--admin-key", "key", type=FILE, help="The key (PEM) of your certificate."),
    "server_name": click.option(
        "--admin-server-name",
        "server_name",
        metavar="NAME",
        help="The name in the server's certificate, where you reach it by another, such as through a port-forward.",
    ),
}


def speaks_to_a_server(command: Callable[Concatenate[Target, P], None]) -> Callable[..., None]:
    """Add the options that say which server, and pass them on as the first argument."""

    @functools.wraps(command)
    def with_target(*args: P.args, **kwargs: P.kwargs) -> None:
        with told_plainly():
            target = _target(**{name: kwargs.pop(name) for name in _CONNECTION})  # type: ignore[arg-type]  # click's
            command(target, *args, **kwargs)

    decorated: Callable[..., None] = with_target
    for option in reversed(_CONNECTION.values()):
        decorated = option(decorated)
    return decorated


def _target(
    admin: Address,
    token_file: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    server_name: str | None,
) -> Target:
    if (cert is None) != (key is None):
        raise click.UsageError("--admin-cert and --admin-key go together")
    client = ClientCertificate(cert, key) if cert is not None and key is not None else None
    return Target(admin, read_token(token_file, os.environ), ca, client, server_name)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what went wrong into one line and exit status 1."""
    try:
        yield
    except BrokenPipeError:
        raise  # who reads has seen enough: click ends without a word
    except (ExtauthzError, OSError) as error:
        raise click.ClickException(str(error)) from error


def key_of(variable: str | None) -> str:
    """Read the API key from the variable that --key-env names; nothing without one."""
    key = "" if variable is None else os.environ.get(variable, "")
    if variable is not None and not key:
        raise click.BadParameter(f"the environment variable {variable} is not set", param_hint="--key-env")
    return key


def text_of(file: BinaryIO, option: str) -> str:
    """Read a text that is not too long."""
    blob = file.read(BODY_BYTES_MAX + 1)
    if len(blob) > BODY_BYTES_MAX:
        raise click.BadParameter(f"it is longer than {BODY_BYTES_MAX} bytes", param_hint=option)
    try:
        return blob.decode()
    except UnicodeDecodeError:
        raise click.BadParameter("it is not UTF-8", param_hint=option) from None


def print_json(value: object) -> None:
    """Print a value in one line of JSON."""
    from extauthz.console.documents import json_line  # noqa: PLC0415 - help needs no protobuf

    click.echo(json_line(value))
