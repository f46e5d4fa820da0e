"""What the access log may make the server do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
    HTTPRequestProperties,
)
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz.adapters.access_log import AccessLogs
from extauthz.adapters.holds import HOLD_BYTES_MAX, HoldCodec
from extauthz.domain.reservation import Hold, Signal, State
from extauthz.endings import Endings
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.promises import Promises
from extauthz.settlement import Settlement
from tests.support.ledger import a_counter, a_hold
from tests.support.processes import eventually
from tests.support.snapshots import a_priced_snapshot
from tests.support.witness import AbsentLedger, Witness

KEY = b"k" * 32


@dataclass(slots=True)
class House:
    """The service, on a store in memory that can keep its answers back."""

    key: bytes | None = KEY
    ledger: AbsentLedger = field(default_factory=AbsentLedger)
    witness: Witness = field(default_factory=Witness)
    service: AccessLogs = field(init=False)

    def __post_init__(self) -> None:
        usual = UsualAnswer(UsualTokens(1), UsualTokens(0))
        settlement = Settlement(self.ledger, Endings(self.ledger, self.witness), a_priced_snapshot, usual, self.witness)
        holds = HoldCodec(lambda: self.key)
        promises = Promises(self.ledger, settlement, self.witness, unseal=holds.unseal, decode=holds.decode)
        self.service = AccessLogs(settlement, promises, holds, self.witness, asyncio.Event())

    async def log(self, *entries: HTTPAccessLogEntry) -> None:
        """Send one batch, as Envoy does."""

        async def messages() -> AsyncIterator[StreamAccessLogsMessage]:
            logs = StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
            yield StreamAccessLogsMessage(http_logs=logs)

        await self.service.StreamAccessLogs(messages(), None)  # type: ignore[arg-type]  # it needs no context


def unanswered(reservation_id: str) -> HTTPAccessLogEntry:
    """Log a request whose Check was never answered."""
    return HTTPAccessLogEntry(
        common_properties=AccessLogCommon(access_log_type=AccessLogType.DownstreamEnd),
        request=HTTPRequestProperties(request_headers={"x-extauthz-id": reservation_id}),
    )


def finished(hold: Hold, *, key: bytes = KEY, kind: AccessLogType = AccessLogType.DownstreamEnd) -> HTTPAccessLogEntry:
    """Log the end of a stream that carries a hold, signed with a key."""
    entry = HTTPAccessLogEntry()
    common = entry.common_properties
    common.access_log_type = kind
    common.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {"extauthz.r": HoldCodec(lambda: key).encode(hold)}
    )
    return entry


def holds(*names: str) -> list[Hold]:
    """Make holds of these names."""
    return [a_hold(name, (a_counter(),), reserved_at_ms=0) for name in names]


@pytest.mark.parametrize(
    ("header", "remembered"),
    [
        pytest.param("6f1c2d3e-1111-4222-8333-444455556666", 1, id="Envoy's own"),
        pytest.param("mine", 0, id="a client's"),
        pytest.param("x" * 50_000, 0, id="a long one"),
        pytest.param("6F1C2D3E-1111-4222-8333-444455556666", 0, id="nearly Envoy's"),
        pytest.param("", 0, id="empty"),
    ],
)
async def test_only_envoys_ids_are_released(header: str, remembered: int) -> None:
    """Envoy also logs requests that it refused before it could overwrite x-extauthz-id: those are no signals."""
    house = House()
    await house.log(unanswered(header))

    assert remembered == len(house.ledger._tombstones._early)


async def test_a_batch_is_taken_at_the_same_time() -> None:
    """No entry waits for the store's answer to another, so that all of them share one way to it."""
    house = House()
    house.ledger.answers.clear()
    logging = asyncio.get_running_loop().create_task(house.log(*map(finished, holds("a", "b", "c"))))
    await eventually(lambda: house.ledger.tries == 3, what="the store is told of all of them")

    assert [] == house.ledger.told
    assert not logging.done()
    house.ledger.answers.set()
    await logging
    assert ["a", "b", "c"] == house.ledger.ids


async def test_a_bad_entry_does_not_lose_the_others() -> None:
    """What fails is reported and what is forged is counted; the rest of the batch is booked."""
    house = House()
    house.ledger.broken.add("broken")
    first, broken, forged, last = holds("first", "broken", "forged", "last")
    await house.log(finished(first), finished(broken), finished(forged, key=b"f" * 32), finished(last))

    assert ["first", "last"] == house.ledger.ids
    ((where, error),) = house.witness.failures
    assert ("access_log", ZeroDivisionError) == (where, type(error))
    assert 1 == house.witness.holds_rejected


async def test_without_the_stores_key_no_hold_is_believed() -> None:
    """Before the store was reached nothing can be told from a forgery, and nothing is done."""
    house = House(key=None)
    (living,) = holds("living")
    await house.log(*map(finished, holds("a")), finished(living, kind=AccessLogType.DownstreamPeriodic))

    assert ([], 0) == (house.ledger.told, house.witness.holds_rejected)
    assert 0 == house.ledger.tries


async def test_ends_of_streams_wait_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the store is reached they are taken in, in their order; a forged or a bad one is found out then."""
    monkeypatch.setattr("extauthz.adapters.access_log.VERIFY_S", 0.0)
    house = House(key=None)
    house.ledger.broken.add("broken")
    first, broken, forged, last = holds("first", "broken", "forged", "last")
    await house.log(finished(first), finished(broken), finished(forged, key=b"f" * 32), finished(last))
    catching_up = asyncio.get_running_loop().create_task(house.service.catch_up())
    house.key = KEY
    await eventually(lambda: len(house.ledger.told) == 2, what="the ends are taken in")
    catching_up.cancel()

    assert ["first", "last"] == house.ledger.ids
    assert ["access_log"] == [where for where, _ in house.witness.failures]
    assert 1 == house.witness.holds_rejected


async def test_ends_that_wait_for_the_key_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no room for is counted as lost, and so is what is too large to be a hold."""
    monkeypatch.setattr("extauthz.adapters.access_log.UNVERIFIED_MAX", 2)
    house = House(key=None)
    huge = finished(holds("huge")[0])
    huge.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"]["extauthz.r"] = "x" * (
        HOLD_BYTES_MAX + 1
    )
    kept = holds("a", "b")
    await house.log(huge, *map(finished, [*kept, *holds("c")]))

    assert [(State.SETTLED, Signal.ACCESS_LOG)] * 2 == house.witness.lost
    assert kept == [HoldCodec(lambda: KEY).decode(end.hold) for end in house.service._unverified]
