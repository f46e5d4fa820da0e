"""The directory that a configuration names besides its files: its source, and the lookup that asks it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from extauthz.config.model import DirectoryKind, Settings
from extauthz.config.records import RecordMaker
from extauthz.config.snapshot import Configuration, Snapshot
from extauthz.directories.litellm.opening import litellm_source
from extauthz.directories.lookup import KnownElsewhere, Lookup, Rules
from extauthz.directories.source import Source
from extauthz.directories.store.records import Records
from extauthz.directories.store.source import StoreSource
from extauthz.domain.budgets import Scope
from extauthz.jobs import repeated
from extauthz.telemetry.events import Telemetry


@dataclass(frozen=True, slots=True)
class Ground:
    """What sources are made of; `records` are those of the store, where keys and payers are kept there."""

    settings: Settings
    records: Records | None
    telemetry: Telemetry


def _litellm(ground: Ground) -> Source:
    url = ground.settings.directory_url
    return litellm_source(
        "" if url is None else url.get_secret_value(),
        ground.settings.end_user_budget,
        ground.telemetry.directory_unreadable,
    )


def _store(ground: Ground) -> Source | None:
    def unreadable(scope: Scope, error: Exception) -> None:
        ground.telemetry.directory_unreadable(scope.text, str(error))

    return None if ground.records is None else StoreSource(ground.records, unreadable)


# How the source of each kind is made; without one, only files say who is known.
SOURCES: Mapping[DirectoryKind, Callable[[Ground], Source | None]] = {
    DirectoryKind.LITELLM: _litellm,
    DirectoryKind.STORE: _store,
}


@asynccontextmanager
async def opened_lookup(
    configuration: Configuration, records: Records | None, telemetry: Telemetry
) -> AsyncIterator[Lookup | None]:
    """Look payers up inside the block, for the configuration in force and those that follow it.

    Raises ExtraMissingError, and UnclearError for a URL that is none. A directory that does not answer is no reason not
    to start.
    """
    settings = configuration().settings
    make = SOURCES.get(settings.directory)
    source = None if make is None else make(Ground(settings, records, telemetry))
    if source is None:
        yield None
        return
    lookup = Lookup(source, _rules(settings), telemetry, time.monotonic, entries_max=settings.directory_entries_max)
    try:
        configuration.prepare_with(lambda snapshot: _beside(snapshot, lookup))
        async with repeated("directory", lookup.follow, telemetry):
            yield lookup
    finally:
        await lookup.close()


def _beside(snapshot: Snapshot, lookup: Lookup) -> Snapshot:
    """Put what a lookup knows beside the files of a configuration, by the calendar and the rules of its settings."""
    lookup.rules = _rules(snapshot.settings)
    others = KnownElsewhere(lookup, RecordMaker(snapshot.settings))
    return replace(snapshot, directory=snapshot.directory.beside(others))


def _rules(settings: Settings) -> Rules:
    return Rules(
        float(settings.directory_refresh_seconds), settings.directory_stale_seconds, settings.directory_failure
    )
