"""The metrics of the directory that payers are looked up in."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extauthz.telemetry.events import LookupResult


class DirectoryMetrics:
    """How looking payers up goes."""

    def __init__(self, registry: CollectorRegistry, buckets: Sequence[float]) -> None:
        self.lookups = Counter(
            "extauthz_directory_lookups",
            "Payers who were looked for in the directory, by what came of it.",
            ("result",),
            registry=registry,
        )
        for result in LookupResult:
            self.lookups.labels(result)
        self._entries = Gauge(
            "extauthz_directory_entries", "Payers of the directory that are remembered.", registry=registry
        )
        self._seconds = Histogram(
            "extauthz_directory_fetch_seconds",
            "Time that the directory took to answer.",
            buckets=buckets,
            registry=registry,
        )
        self.up = Gauge("extauthz_directory_up", "Whether the directory answers.", registry=registry)
        self.up.set(1)

    def fetched(self, seconds: float, entries: int) -> None:
        """Show that the directory answered, and how many payers are remembered."""
        self._seconds.observe(seconds)
        self._entries.set(entries)
