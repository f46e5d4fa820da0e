"""What the log and the metrics say of the store: each change once, each gauge as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import LogCapture

from extauthz.domain.address import Address
from extauthz.domain.reservation import Signal, State
from extauthz.errors import StoreUnavailableError
from extauthz.ledger.link import Server
from extauthz.telemetry.events import LookupResult
from extauthz.telemetry.log import STORE_LOG_S, Reporter
from extauthz.telemetry.metrics import Metrics

SERVER = Server(
    address=Address("redis", 6379),
    run_id="run-1",
    replication_id="history-1",
    version="7.4.0",
    maxmemory_policy="noeviction",
    evicted=0,
    persistent=True,
)
EVICTING = replace(SERVER, maxmemory_policy="allkeys-lru")
UNSAVED = replace(SERVER, persistent=False)

THERE, AWAY = "the store is there", "the store is away"
EVICTS = "the store throws keys away when its memory is full, and budgets with them: set maxmemory-policy noeviction"
EVICTED = "the store has thrown keys away: the books may be wrong"
UNSAFE = "the store writes nothing to disk: a restart loses the books; set appendonly yes"
SILENT = "the store did not answer"


class House:
    """A reporter, with what it logs, what it counts, and its clock in the test's hand."""

    def __init__(self) -> None:
        self.log = LogCapture()
        self.now_s = 0.0
        self.metrics = Metrics()
        logger = structlog.wrap_logger(None, processors=[self.log], wrapper_class=structlog.BoundLogger)
        self.reporter = Reporter(self.metrics, logger, lambda: self.now_s)

    @property
    def lines(self) -> list[str]:
        """The events that were logged, those that are alarms with a `!`."""
        marks = {"info": "", "warning": "!", "error": "!!"}
        return [f"{line['event']}{marks[line['log_level']]}" for line in self.log.entries]

    def value(self, name: str, **labels: str) -> float:
        """Give one sample of the metrics."""
        families = text_string_to_metric_families(self.metrics.text().decode())
        samples = [sample for family in families for sample in family.samples]
        (value,) = (sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))
        return value


def test_a_store_in_memory_is_always_there() -> None:
    """Nobody looks at a store that is this process; it is up."""
    assert 1 == House().value("extauthz_store_up")


@pytest.mark.parametrize(
    ("seen", "lines"),
    [
        pytest.param([SERVER, SERVER, SERVER], [THERE], id="as it should be"),
        pytest.param([SERVER, "reset", SERVER], [THERE, f"{AWAY}!!", THERE], id="lost and found"),
        pytest.param(["refused", "loading", SERVER], [f"{AWAY}!!", f"{AWAY}!!", THERE], id="away at the start"),
        pytest.param([EVICTING, EVICTING], [THERE, f"{EVICTS}!!"], id="it may evict"),
        pytest.param([SERVER, EVICTING, EVICTING], [THERE, f"{EVICTS}!!"], id="it was told to evict, later"),
        pytest.param(
            [EVICTING, SERVER, EVICTING], [THERE, f"{EVICTS}!!", f"{EVICTS}!!"], id="it was put right for a while"
        ),
        pytest.param([EVICTING, "reset", EVICTING], [THERE, f"{EVICTS}!!", f"{AWAY}!!", THERE], id="a blip"),
        pytest.param(
            [EVICTING, replace(EVICTING, run_id="run-2")],
            [THERE, f"{EVICTS}!!", f"{EVICTS}!!"],
            id="another one evicts as well",
        ),
        pytest.param(
            [EVICTING, replace(EVICTING, replication_id="history-2")],
            [THERE, f"{EVICTS}!!"],
            id="a primary again: the same server",
        ),
        pytest.param([UNSAVED, UNSAVED], [THERE, f"{UNSAFE}!"], id="it saves nothing"),
        pytest.param([SERVER, UNSAVED, UNSAVED], [THERE, f"{UNSAFE}!"], id="it was told to save nothing, later"),
        pytest.param(
            [SERVER, replace(SERVER, evicted=5), replace(SERVER, evicted=5), replace(SERVER, evicted=6)],
            [THERE, f"{EVICTED}!!", f"{EVICTED}!!"],
            id="it has evicted, and again",
        ),
        pytest.param(
            [replace(SERVER, evicted=5), replace(SERVER, run_id="run-2", evicted=7)],
            [THERE],
            id="what another one evicted is not known to be ours",
        ),
        pytest.param(
            [replace(UNSAVED, maxmemory_policy="volatile-ttl")], [THERE, f"{UNSAFE}!", f"{EVICTS}!!"], id="both"
        ),
    ],
)
def test_what_is_new_about_the_store_is_logged_once(seen: list[Server | str], lines: list[str]) -> None:
    """A look at the store each minute says nothing that was said before; what is dangerous is an alarm."""
    house = House()
    for each in seen:
        if isinstance(each, Server):
            house.reporter.store_seen(each)
        else:
            house.reporter.store_lost(each)

    assert lines == house.lines


def test_lines_about_the_store_say_what_one_needs() -> None:
    """Where it is, what it is, why it is away, and what it is set to."""
    house = House()
    house.reporter.store_seen(replace(EVICTING, evicted=1))
    house.reporter.store_seen(replace(EVICTING, evicted=3))
    house.reporter.store_lost("it did not answer in time")

    assert [
        {"address": "redis:6379", "version": "7.4.0"},
        {"policy": "allkeys-lru"},
        {"count": 3},
        {"reason": "it did not answer in time"},
    ] == [
        {name: value for name, value in line.items() if name not in ("event", "log_level")}
        for line in house.log.entries
    ]


def test_gauges_of_the_store() -> None:
    """Up, evictions and persistence are shown as they were seen last; being away says nothing of the others."""
    house = House()

    def gauges() -> tuple[float, ...]:
        names = ("extauthz_store_up", "extauthz_store_evicted_keys", "extauthz_store_persistent")
        return tuple(map(house.value, names))

    house.reporter.store_lost("refused")
    assert (0, 0, 0) == gauges()
    house.reporter.store_seen(replace(SERVER, evicted=4))
    assert (1, 4, 1) == gauges()
    house.reporter.store_lost("refused")
    assert (0, 4, 1) == gauges()
    house.reporter.store_seen(replace(UNSAVED, run_id="run-2"))
    assert (1, 0, 0) == gauges()


def test_a_dead_store_fills_no_log() -> None:
    """Each failure is counted by its verb; at most one line in STORE_LOG_S tells of one, the first at once."""
    house = House()
    for verb in ("reserve", "settle"):
        for _ in range(50):
            house.reporter.store_failed(verb, StoreUnavailableError("it did not answer in time"))
    assert [f"{SILENT}!!"] == house.lines
    assert ("reserve", "it did not answer in time") == (
        house.log.entries[0]["verb"],
        house.log.entries[0]["reason"],
    )

    house.now_s = STORE_LOG_S - 0.001
    house.reporter.store_failed("reserve", StoreUnavailableError())
    assert 1 == len(house.lines)
    house.now_s = STORE_LOG_S
    house.reporter.store_failed("reserve", StoreUnavailableError())
    house.reporter.store_failed("reserve", StoreUnavailableError())
    assert 2 == len(house.lines)
    assert (53, 50) == tuple(house.value("extauthz_store_errors_total", verb=verb) for verb in ("reserve", "settle"))


def test_a_replay_is_logged_and_counted() -> None:
    """The line says how much was told, the metric counts what had been forgotten."""
    house = House()
    house.reporter.store_replayed(40, 3)
    house.reporter.store_replayed(10, 0)

    assert ["the store started anew and was told the last seconds!"] * 2 == house.lines
    assert (40, 3) == (house.log.entries[0]["told"], house.log.entries[0]["forgotten"])
    assert 3 == house.value("extauthz_store_verbs_replayed_total")


def test_endings_that_wait_or_are_lost() -> None:
    """The gauge shows the last count; what was lost is counted by how it would have ended."""
    house = House()
    for count in (1, 2, 0):
        house.reporter.endings_waiting(count)
        assert count == house.value("extauthz_endings_waiting")
    house.reporter.ending_lost(State.SETTLED, Signal.ACCESS_LOG)

    assert 1 == house.value("extauthz_endings_lost_total", how="settled", signal="access_log")
    assert [] == house.lines


def test_blindness_is_logged_when_it_begins() -> None:
    """It is looked at ten times a second, and says so once; the gauge shows it all the while."""
    house = House()
    shown = []
    for blind in (False, True, True, False, True):
        house.reporter.settlement_blind(blind=blind)
        shown.append(house.value("extauthz_settlement_blind"))

    assert [0, 1, 1, 0, 1] == shown
    assert 2 == len(house.lines)
    assert all(line.endswith("!!") for line in house.lines)


def test_a_loaded_configuration_is_logged_by_its_sections() -> None:
    """One line names what changed and what was said about it; another warns of what waits for a restart."""
    house = House()
    house.reporter.config_loaded(1_500, changed=("extauthz.teams",), waiting=(), notices=("no model",))
    house.reporter.config_loaded(2_500, changed=("extauthz.store",), waiting=("store",), notices=())

    loaded = "the configuration was loaded"
    assert [loaded, loaded, "settings wait for a restart, and stay as they are until then!"] == house.lines
    assert (["extauthz.teams"], ["no model"]) == (house.log.entries[0]["changed"], house.log.entries[0]["notices"])
    assert ["store"] == house.log.entries[2]["settings"]
    assert (2, 2.5) == (
        house.value("extauthz_config_reloads_total", result="loaded"),
        house.value("extauthz_config_loaded_timestamp_seconds"),
    )


def test_a_refused_configuration_is_logged_once() -> None:
    """The same mistakes are one line, however often they are found; the gauge shows them until the files are right."""
    house = House()
    refused = "the configuration was refused, and the one before stays!!"
    shown = []
    for mistakes in (["a"], ["a"], ["a", "b"], [], ["a", "b"]):
        if mistakes:
            house.reporter.config_refused(mistakes)
        else:
            house.reporter.config_unchanged()
        shown.append(house.value("extauthz_config_reload_failed"))

    right = "the files of the configuration are right again, and say what is in force"
    assert [refused, refused, right, refused] == house.lines
    assert ["a", "b"] == house.log.entries[1]["mistakes"]
    assert [1, 1, 1, 0, 1] == shown
    assert (4, 1) == tuple(
        house.value("extauthz_config_reloads_total", result=result) for result in ("refused", "unchanged")
    )
    house.reporter.config_loaded(0, changed=(), waiting=(), notices=())
    assert 0 == house.value("extauthz_config_reload_failed")


def test_folders_that_cannot_be_watched_are_a_warning() -> None:
    """The line says why, and how late changes are noticed."""
    house = House()
    house.reporter.config_unwatched("no watch is left", 10.0)

    assert ["folders of the configuration cannot be watched!"] == house.lines
    assert 10.0 == house.log.entries[0]["looked_at_every_s"]


class TestDirectory:
    """What is said of the directory."""

    def test_away_and_back(self) -> None:
        """That it is away and that it is there is logged, and the gauge follows."""
        house = House()
        assert house.value("extauthz_directory_up") == 1
        house.reporter.directory_lost("the line is cut")
        assert house.value("extauthz_directory_up") == 0
        house.reporter.directory_seen()

        assert house.value("extauthz_directory_up") == 1
        assert house.lines == ["the directory is away!!", "the directory is there"]
        assert house.log.entries[0]["reason"] == "the line is cut"

    def test_lookups(self) -> None:
        """Payers who were looked for are counted by what came of it, each result from its first time on."""
        house = House()
        results = {result: house.value("extauthz_directory_lookups_total", result=result) for result in LookupResult}
        house.reporter.directory_asked(LookupResult.HIT, 5)
        house.reporter.directory_fetched(0.003, 12)

        assert set(results.values()) == {0}
        assert house.value("extauthz_directory_lookups_total", result="hit") == 5
        assert house.value("extauthz_directory_entries") == 12
        assert house.value("extauthz_directory_fetch_seconds_count") == 1

    def test_unreadable(self) -> None:
        """Whose record cannot be read is named."""
        house = House()
        house.reporter.directory_unreadable("team:research", "max_budget is not a number")

        assert house.lines == ["the directory says what cannot be read!"]
        assert house.log.entries[0]["payer"] == "team:research"
