"""The Prometheus metrics, in a registry of their own; every label has a closed or bounded set of values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.samples import Sample

from extauthz.domain.budgets import Measure, Standing
from extauthz.domain.money import usd
from extauthz.domain.reservation import Signal, State
from extauthz.domain.thresholds import ThresholdKind
from extauthz.domain.tokens import TokenFault
from extauthz.domain.verdict import Decision, Deny
from extauthz.ledger.base import Ending
from extauthz.ledger.link import Server
from extauthz.telemetry.directory import DirectoryMetrics
from extauthz.telemetry.events import Delivery

# Budgets that /metrics shows one by one, those nearest to their limit first: an alert needs no others. What they leave
# over is added up in extauthz_budgets_rest_usd.
BUDGETS_MAX = 200

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Every metric of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.checks = Counter(
            "extauthz_checks",
            "Checks answered, by what the request was, the decision and its reason.",
            ("route_class", "decision", "reason"),
            registry=registry,
        )
        self.check_seconds = Histogram(
            "extauthz_check_duration_seconds", "Time to answer a Check.", buckets=_SECONDS, registry=registry
        )
        self._reservations_open = Gauge("extauthz_reservations_open", "Reservations that are held.", registry=registry)
        self._held_all = Gauge(
            "extauthz_held_usd", "What all open reservations hold, each counted once.", registry=registry
        )
        self.reservations_ended = Counter(
            "extauthz_reservations_ended",
            "Reservations ended, by how and by the signal that ended them.",
            ("how", "signal"),
            registry=registry,
        )
        self.signals_repeated = Counter(
            "extauthz_signals_repeated",
            "Signals about a reservation that had ended before, or that was never made; they change nothing.",
            ("signal",),
            registry=registry,
        )
        self.settlements_forgotten = Counter(
            "extauthz_settlements_forgotten",
            "Settlements that came too late to be booked: their spend is missing from the books.",
            registry=registry,
        )
        self.usage_absurd = Counter(
            "extauthz_usage_absurd", "Answers whose usage had to be put right.", ("field",), registry=registry
        )
        self.free_answers_paid = Counter(
            "extauthz_free_answers_paid",
            "Requests that were exempt as free, and booked because a paid model answered.",
            registry=registry,
        )
        self.holds_rejected = Counter("extauthz_holds_rejected", "Holds without a valid signature.", registry=registry)
        self.failures = Counter(
            "extauthz_failures", "Failures of our own, by where they happened.", ("where",), registry=registry
        )
        self.store_errors = Counter(
            "extauthz_store_errors", "Ledger verbs that the store did not answer.", ("verb",), registry=registry
        )
        self.store_seconds = Histogram(
            "extauthz_store_duration_seconds",
            "Time that the store took for a ledger verb.",
            ("verb",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.store_up = Gauge("extauthz_store_up", "Whether the store answers.", registry=registry)
        self.store_up.set(1)
        self._store_evicted = Gauge(
            "extauthz_store_evicted_keys", "Keys that the store threw away for want of memory.", registry=registry
        )
        self._store_persistent = Gauge(
            "extauthz_store_persistent", "Whether the store writes to disk.", registry=registry
        )
        self.store_replayed = Counter(
            "extauthz_store_verbs_replayed",
            "Verbs that a store had forgotten when it started anew or failed over, and was told again.",
            registry=registry,
        )
        self.directory = DirectoryMetrics(registry, _SECONDS)
        self.audit_drift = Gauge(
            "extauthz_audit_drift_usd",
            "How far counters are from what explains them, all together; 0 where another server audited them last.",
            registry=registry,
        )
        self.endings_waiting = Gauge(
            "extauthz_endings_waiting", "Endings that wait for the store to come back.", registry=registry
        )
        self.endings_lost = Counter(
            "extauthz_endings_lost",
            "Endings that there was no room to keep while the store was away; leases end their reservations.",
            ("how", "signal"),
            registry=registry,
        )
        self.settlement_blind = Gauge(
            "extauthz_settlement_blind",
            "Whether leases end reservations because no access logs come.",
            registry=registry,
        )
        self.spans_lost = Counter("extauthz_spans_lost", "Spans of traces that no collector took.", registry=registry)
        self.watchers = Gauge("extauthz_watchers", "Readers of the live stream of decisions.", registry=registry)
        self.budget_alerts = Counter(
            "extauthz_budget_alerts",
            "Thresholds that budgets crossed and this replica told of.",
            ("kind",),
            registry=registry,
        )
        self.webhooks = Counter(
            "extauthz_webhooks",
            "Alerts on their way to the webhook, by what became of them.",
            ("result",),
            registry=registry,
        )
        for kind in ThresholdKind:
            self.budget_alerts.labels(kind)
        for delivery in Delivery:
            self.webhooks.labels(delivery)
        self.config_reloads = Counter(
            "extauthz_config_reloads",
            "Looks at the files of the configuration because they changed, or on SIGHUP, by what came of it.",
            ("result",),
            registry=registry,
        )
        for result in ("loaded", "refused", "unchanged"):
            self.config_reloads.labels(result)  # a series that begins with its first count has no increase
        self.config_reload_failed = Gauge(
            "extauthz_config_reload_failed",
            "Whether the files of the configuration are wrong, so that an older one is in force.",
            registry=registry,
        )
        self.config_loaded = Gauge(
            "extauthz_config_loaded_timestamp_seconds",
            "When the configuration in force was loaded.",
            registry=registry,
        )
        self.tokens_refused = Counter(
            "extauthz_tokens_refused", "Tokens that were not accepted, by what is wrong.", ("fault",), registry=registry
        )
        for fault in TokenFault:
            self.tokens_refused.labels(fault)
        self.key_fetches = Counter(
            "extauthz_key_fetches",
            "Times that an issuer was asked for its keys, by what came of it.",
            ("issuer", "result"),
            registry=registry,
        )
        self._keys_fetched_at = Gauge(
            "extauthz_keys_fetched_timestamp_seconds",
            "When an issuer gave its keys last; tokens are checked with these.",
            ("issuer",),
            registry=registry,
        )
        budget = ("scope", "window")
        self._limit = Gauge("extauthz_budget_limit_usd", "The limit of a budget.", budget, registry=registry)
        self._spent = Gauge("extauthz_budget_spent_usd", "Settled cost in its window.", budget, registry=registry)
        self._held = Gauge("extauthz_budget_held_usd", "Open reservations in its window.", budget, registry=registry)
        other = ("scope", "window", "measure")
        self._other_limit = Gauge(
            "extauthz_budget_limit", "The limit of a budget in tokens or requests.", other, registry=registry
        )
        self._other_spent = Gauge(
            "extauthz_budget_spent", "Tokens or requests of answers in its window.", other, registry=registry
        )
        self._other_held = Gauge("extauthz_budget_held", "The same of open reservations.", other, registry=registry)
        self._hidden = Gauge(
            "extauthz_budgets_hidden", f"Budgets beyond the {BUDGETS_MAX} that are shown.", registry=registry
        )
        self._rest = Gauge(
            "extauthz_budgets_rest_usd",
            f"Budgets in USD beyond the {BUDGETS_MAX} that are shown, added up: their limits, what is spent and held.",
            ("of",),
            registry=registry,
        )
        self._surveyed_at = Gauge(
            "extauthz_budgets_surveyed_timestamp_seconds",
            "When the store was last asked how the budgets stand; what is shown of them is as old.",
            registry=registry,
        )
        # Of each request: to find a series by its labels takes a lock and a text of each, 2 µs. There are few of them.
        self._checks_of, self._store_seconds_of, self._ended_by = (
            cache(self.checks.labels),
            cache(self.store_seconds.labels),
            cache(self.reservations_ended.labels),
        )

    def decided(self, decision: Decision, seconds: float) -> None:
        """Count an answered Check."""
        judged = decision.judged
        self._checks_of(decision.route_class, decision.word, judged.reason).inc()
        if isinstance(judged, Deny) and judged.fault is not None:
            self.tokens_refused.labels(judged.fault).inc()
        self.check_seconds.observe(seconds)

    def store_answered(self, verb: str, seconds: float) -> None:
        """Time a verb."""
        self._store_seconds_of(verb).observe(seconds)

    def ended(self, how: State, signal: Signal, ending: Ending) -> None:
        """Count an ended reservation once, and signals that changed nothing apart."""
        match ending:
            case Ending.FIRST | Ending.LATE:
                self._ended_by(how, signal).inc()
            case Ending.UNKNOWN if how is State.SETTLED:
                self._ended_by(how, signal).inc()
            case Ending.FORGOTTEN:
                self.settlements_forgotten.inc()
            case Ending.UNKNOWN | Ending.REPEATED | Ending.OPEN:
                self.signals_repeated.labels(signal).inc()

    def keys_fetched(self, issuer: str) -> None:
        """Count and show that an issuer gave its keys."""
        self.key_fetches.labels(issuer, "fetched").inc()
        self._keys_fetched_at.labels(issuer).set_to_current_time()

    def store_seen(self, server: Server) -> None:
        """Show how the store is."""
        self.store_up.set(1)
        self._store_evicted.set(server.evicted)
        self._store_persistent.set(server.persistent)

    def set_reservations(self, count: int, held: int, taken_ms: int) -> None:
        """Show how many reservations were open at a moment (Unix milliseconds), and what all of them held."""
        self._reservations_open.set(count)
        self._held_all.set(float(usd(held)))
        self._surveyed_at.set(taken_ms / 1000)

    def set_standings(self, standings: Iterable[Standing], hidden: int, rest_nanousd: Mapping[str, int]) -> None:
        """Show how the most used budgets stand; the others of the last time go away.

        There are `hidden` more, which come to `rest_nanousd` by `limit`, `spent` and `held`.
        """
        in_usd, others = (
            (self._limit, self._spent, self._held),
            (self._other_limit, self._other_spent, self._other_held),
        )
        for gauge in (*in_usd, *others):
            gauge.clear()
        for standing in standings:
            counter, amounts = standing.counter, (standing.limit, standing.spent, standing.held)
            for usd_gauge, other_gauge, amount in zip(in_usd, others, amounts, strict=True):
                if counter.measure is Measure.USD:
                    usd_gauge.labels(counter.scope.text, counter.label).set(float(usd(amount)))
                else:
                    other_gauge.labels(counter.scope.text, counter.label, counter.measure).set(amount)
        self._hidden.set(hidden)
        for what, nanousd in rest_nanousd.items():
            self._rest.labels(what).set(float(usd(nanousd)))

    def decisions(self) -> Mapping[tuple[str, str, str], int]:
        """Tell how many Checks were answered, by route class, decision and reason."""
        return {
            (sample.labels["route_class"], sample.labels["decision"], sample.labels["reason"]): int(sample.value)
            for sample in _samples(self.checks)
        }

    def store_error_count(self) -> int:
        """Tell how many verbs the store did not answer."""
        return sum(int(sample.value) for sample in _samples(self.store_errors))

    def text(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self._registry)


def _samples(counter: Counter) -> Iterator[Sample]:
    """Give what a counter counted, by its labels, without the times when it began."""
    return (sample for family in counter.collect() for sample in family.samples if sample.name.endswith("_total"))
