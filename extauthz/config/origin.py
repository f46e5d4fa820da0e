"""Where the configuration of a server comes from, so that it can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from extauthz.config.load import Reading, read_config
from extauthz.config.snapshot import Snapshot
from extauthz.domain.address import Address
from extauthz.errors import ConfigError, Mistake


@dataclass(frozen=True, slots=True)
class Origin:
    """A file, the environment, and the addresses that the command line says instead of the file."""

    path: Path
    environ: Mapping[str, str] = field(repr=False)
    grpc: Address | None = None
    admin: Address | None = None
    http: Address | None = None

    def load(self) -> Snapshot:
        """Read the configuration. Raises ConfigError with every mistake."""
        outcome = self.read().outcome
        if isinstance(outcome, Snapshot):
            return outcome
        raise ConfigError(outcome)

    def read(self) -> Reading:
        """Read the configuration, and tell mistakes instead of raising them."""
        reading = read_config(self.path, self.environ)
        snapshot = reading.outcome
        if not isinstance(snapshot, Snapshot):
            return reading
        try:
            settings = snapshot.settings.listening(grpc=self.grpc, admin=self.admin, http=self.http)
        except ValueError as error:
            return replace(reading, outcome=(Mistake(self.path, 1, str(error)),))
        return replace(reading, outcome=replace(snapshot, settings=settings))
