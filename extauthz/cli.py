"""The commands: parse, call, print. Exit status 0 is fine, 1 refused or failed, 2 wrong usage."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.console.check import check
from extauthz.console.commands import COMMANDS
from extauthz.console.parameters import ADDRESS, FILE, PLACE, json_option, speaks_to_a_server, who_option
from extauthz.console.payer_commands import DIRECTORY_COMMANDS
from extauthz.console.target import Target
from extauthz.domain.address import Address
from extauthz.errors import ConfigError, ExtauthzError

if TYPE_CHECKING:
    from extauthz.config.origin import Origin
    from extauthz.config.snapshot import Snapshot

# Commands that need no configuration, no server or no pictures start faster without: each imports what it needs.
# ruff: noqa: PLC0415

# A lease outlives three lost signs of life.
HEARTBEATS_PER_LEASE = 4

CONFIG_HELP = "The configuration file; a LiteLLM config.yaml works as it is."

_CONFIG = click.option("--config", "path", type=FILE, required=True, help=CONFIG_HELP)
_BOOKS = click.option(
    "--config", "path", type=FILE, help="Open the store of this configuration, instead of asking a running server."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="extauthz")
def main() -> None:
    """Gate LLM traffic by budgets, as an ext_authz service for Envoy."""


@main.command()
@_CONFIG
@click.option("--grpc", type=ADDRESS, help="Listen here for Envoy instead of extauthz.listen.grpc.")
@click.option("--admin", type=ADDRESS, help="Listen here for operators instead of extauthz.listen.admin.")
@click.option(
    "--http", type=ADDRESS, help="Listen here for /metrics, /healthz and /readyz instead of extauthz.listen.http."
)
def serve(path: Path, grpc: Address | None, admin: Address | None, http: Address | None) -> None:
    """Serve Envoy until SIGTERM."""
    from extauthz.config.origin import Origin
    from extauthz.server import serve as serve_until_stopped
    from extauthz.telemetry.log import new_logger

    origin = Origin(path, os.environ, grpc=grpc, admin=admin, http=http)
    try:
        asyncio.run(serve_until_stopped(_load(origin), new_logger(), origin))
    except (OSError, ExtauthzError) as error:
        raise click.ClickException(str(error)) from error


@main.command("check-config")
@click.argument("path", type=FILE, metavar="FILE")
@json_option
def check_config(path: Path, as_json: bool) -> None:
    """Read the configuration FILE and tell what is wrong with it."""
    from extauthz.config.load import load

    try:
        config = load(path, os.environ)
    except ConfigError as error:
        if as_json:
            mistakes = [
                {"file": str(mistake.file), "line": mistake.line, "message": mistake.message}
                for mistake in error.mistakes
            ]
            click.echo(json.dumps({"ok": False, "file": str(path), "mistakes": mistakes}))
        else:
            click.echo(str(error), err=True)
        sys.exit(1)
    models = len(config.catalog.listed())
    if as_json:
        click.echo(json.dumps({"ok": True, "file": str(path), "models": models, "notices": list(config.notices)}))
        return
    for notice in config.notices:
        click.echo(notice)
    click.echo(f"{path}: fine, {models} models, policy {config.settings.models_policy}")


@main.command("envoy-config")
@_CONFIG
@click.option("--listen", type=ADDRESS, required=True, help="Where Envoy listens for clients.")
@click.option("--upstream", type=ADDRESS, required=True, help="The OpenAI-compatible upstream.")
@click.option("--upstream-tls", is_flag=True, help="Speak TLS to the upstream.")
@click.option("--extauthz", type=ADDRESS, help="Where Envoy reaches this service, if not at extauthz.listen.grpc.")
@click.option("--extauthz-ca", type=FILE, help="Envoy's copy of the CA (PEM) that signed tls.cert.")
@click.option("--extauthz-cert", type=FILE, help="Envoy's own certificate (PEM), where tls.client_ca asks for one.")
@click.option("--extauthz-key", type=FILE, help="The key (PEM) of Envoy's own certificate.")
@click.option("--envoy-admin", type=ADDRESS, default="127.0.0.1:9901", show_default=True, help="Envoy's admin address.")
@click.option("--metering", type=click.Choice(["lua", "none"]), default="lua", show_default=True)
def envoy_config(
    *,
    path: Path,
    listen: Address,
    upstream: Address,
    upstream_tls: bool,
    extauthz: Address | None,
    extauthz_ca: Path | None,
    extauthz_cert: Path | None,
    extauthz_key: Path | None,
    envoy_admin: Address,
    metering: str,
) -> None:
    """Print a complete Envoy bootstrap, ready for `envoy -c`."""
    from extauthz.envoy.bootstrap import BootstrapOptions, ClientCertificate, Metering, bootstrap, to_yaml

    settings = _load_file(path).settings
    if settings.tls is not None and settings.tls.client_ca is not None and not (extauthz_cert and extauthz_key):
        raise click.UsageError("tls.client_ca asks Envoy for a certificate: add --extauthz-cert and --extauthz-key")
    options = BootstrapOptions(
        listen=listen,
        upstream=upstream,
        upstream_tls=upstream_tls,
        extauthz=extauthz or settings.listen.grpc.from_here,
        extauthz_tls=settings.tls is not None,
        extauthz_ca=extauthz_ca,
        extauthz_client=ClientCertificate(extauthz_cert, extauthz_key) if extauthz_cert and extauthz_key else None,
        token=None if settings.token is None else settings.token.get_secret_value(),
        envoy_admin=envoy_admin,
        metering=Metering(metering),
        max_request_bytes=settings.max_request_bytes,
        heartbeat_seconds=settings.lease_seconds / HEARTBEATS_PER_LEASE,
        api_prefixes=settings.api_prefixes,
    )
    click.echo(to_yaml(bootstrap(options)), nl=False)


@main.command()
@_BOOKS
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until interrupted.")
@click.option("--after", type=PLACE, help="Begin after this entry (its `at`) instead of at the checkpoint.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--output", type=FILE, help="Append to this file, from where it ends.")
@click.option("--shard", type=click.IntRange(0), metavar="N", help="With shard_by: the shard whose journal it is.")
@speaks_to_a_server
def journal(
    target: Target,
    *,
    path: Path | None,
    follow: bool,
    after: str | None,
    form: str,
    output: Path | None,
    shard: int | None,
) -> None:
    """Print or export what happened to money: every ended reservation, and every change of the books.

    An export kept going (--follow --output FILE) is what `audit --rebuild FILE` restores a lost store from.
    """
    from extauthz.console.exports import Format, write_export

    if path is None:
        from extauthz.console.served import served_journal

        opening = served_journal(target, shard)
        asyncio.run(write_export(opening, output=output, form=Format(form), after=after, follow=follow))
        return
    from extauthz.books import export_journal

    settings = _load_file(path).settings
    asyncio.run(export_journal(settings, output=output, form=Format(form), after=after, follow=follow, shard=shard))


@main.command()
@_BOOKS
@click.option("--rebuild", is_flag=True, help="Put the counters right by the journal, or by the exported FILE.")
@click.argument(
    "export", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="[FILE]", required=False
)
@click.option("--shard", type=click.IntRange(0), metavar="N", help="With --config and shard_by: only this shard.")
@json_option
@speaks_to_a_server
def audit(
    target: Target, *, path: Path | None, rebuild: bool, as_json: bool, export: Path | None, shard: int | None
) -> None:
    """Prove that every counter in the store is what its journal and its open reservations say.

    A running server does it, or with --config this command itself, beside the servers. Exit status 1 when the books are
    wrong.
    """
    if export is not None and not rebuild:
        raise click.UsageError("FILE is what the books are rebuilt from: add --rebuild")
    if path is None and (rebuild or shard is not None):
        raise click.UsageError("--rebuild and --shard need the store itself: add --config")
    if path is None:
        from extauthz.console import served

        ok = served.audit_books(target, as_json=as_json)
    else:
        from extauthz.books import audit_books

        settings = _load_file(path).settings
        ok = asyncio.run(audit_books(settings, rebuild=rebuild, export=export, as_json=as_json, shard=shard))
    sys.exit(0 if ok else 1)


@main.command()
@_CONFIG
@click.option(
    "--spent",
    type=FILE,
    help="What had been spent when the record begins: what `budgets list --json` printed then. Else nothing, or what a "
    "journal's checkpoint says.",
)
@click.argument("record", type=FILE, metavar="FILE")
@json_option
def replay(*, path: Path, spent: Path | None, record: Path, as_json: bool) -> None:
    """Decide again what was recorded, by another configuration, and print what would change.

    FILE has the lines of `extauthz watch --json` or of `extauthz journal`. Every request is decided by the same rules
    as in a server, at its own time and one after the other; nothing but FILE is read, and no store is asked.
    """
    from extauthz.console import replays

    config = _load_file(path)
    try:
        found = replays.replay(config, record, spent)
    except (OSError, ExtauthzError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found.document()))
    else:
        replays.show(found)


@main.group("import")
def import_() -> None:
    """Take over what another gateway has in its database."""


@import_.command("litellm")
@click.option(
    "--database-url",
    envvar="DATABASE_URL",
    required=True,
    metavar="URL",
    help="LiteLLM's database, as its own database_url says it; best by the variable DATABASE_URL.",
)
@click.option("--out", type=FILE, help="Write to this file instead of standard output.")
@click.option(
    "--end-user-budget", metavar="ID", help="LiteLLM's max_end_user_budget_id: the budget of end users without one."
)
@click.option(
    "--config",
    "path",
    type=FILE,
    help="Put what LiteLLM has booked in its current windows into the store of this configuration, by its calendar.",
)
@who_option
def import_litellm(
    *, database_url: str, out: Path | None, end_user_budget: str | None, path: Path | None, who: str
) -> None:
    """Write the keys, teams, users and all others of LiteLLM's database as a configuration file.

    The database is only read, and LiteLLM may go on. With --config this is done again as often as wanted: a budget
    has spent at least what LiteLLM says, and what is there already counts.
    """
    try:
        from extauthz.console import imports  # needs the extra `litellm`
        from extauthz.directories.litellm.files import to_yaml
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'extauthz[litellm]'") from error

    config = None if path is None else _load_file(path)
    try:
        inventory = asyncio.run(imports.read_everything(database_url, end_user_budget))
        text = to_yaml(inventory)
        if out is None:
            click.echo(text, nl=False)
        else:
            out.write_text(text, encoding="utf-8")
        for line in imports.summary(inventory, text):
            click.echo(line, err=True)
        if config is not None:
            from extauthz.books import seed_books

            seeds = imports.seeds_of(inventory, config)
            click.echo(imports.seeded(len(seeds), *asyncio.run(seed_books(config.settings, seeds, who))), err=True)
    except (OSError, ValueError, ExtauthzError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, and print what to try.")
def demo(keep: bool) -> None:
    """Play the whole story: a real Envoy, this service, a small upstream and the OpenAI SDK."""
    try:
        from extauthz.demo.story import play  # needs the extra `demo`
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'extauthz[demo]'") from error
    sys.exit(asyncio.run(play(keep=keep)))


def _load_file(path: Path) -> Snapshot:
    from extauthz.config.origin import Origin

    return _load(Origin(path, os.environ))


def _load(origin: Origin) -> Snapshot:
    """Load the configuration, or print its mistakes, a line each, and end with status 1."""
    try:
        return origin.load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


for command in (check, *COMMANDS, *DIRECTORY_COMMANDS):
    main.add_command(command)
