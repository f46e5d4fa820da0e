"""Settings that a running server cannot follow: what it opened and began at its start."""

from __future__ import annotations

from extauthz.config.model import Settings

# Ports and what carries them; the books: another store, or another division of it, would be other books; the exporter
# of traces; the directory.
KEPT = (
    "listen",
    "tls",
    "server",
    "store",
    "store_timeout_seconds",
    "shard_by",
    "shards",
    "allow_eviction",
    "tombstone_seconds",
    "journal_entries_max",
    "tracing",
    "directory",
    "directory_url",
    "directory_entries_max",
    "end_user_budget",
)

# What was learnt of answers began with these.
KEPT_OF_ESTIMATE = ("mode", "output_tokens")

# A port that asks for a secret follows it to another one, and goes on asking when there is none any more.
SECRETS = ("token", "admin_token")


def kept(running: Settings, wanted: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Give what a running server takes of the wanted settings, and name those that wait for its restart."""
    waiting = [name for name in KEPT if getattr(wanted, name) != getattr(running, name)]
    waiting += [name for name in SECRETS if (getattr(wanted, name) is None) != (getattr(running, name) is None)]
    of_estimate = {name: getattr(running.estimate, name) for name in KEPT_OF_ESTIMATE}
    differing = [name for name, value in of_estimate.items() if value != getattr(wanted.estimate, name)]
    settings = wanted.model_copy(
        update={
            **{name: getattr(running, name) for name in waiting},
            "estimate": wanted.estimate.model_copy(update=of_estimate),
        }
    )
    return settings, (*waiting, *(f"estimate.{name}" for name in differing))
