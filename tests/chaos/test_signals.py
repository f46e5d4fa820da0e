"""Signals that come twice, late, out of order or forged: a real server, and entries that no Envoy would send so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import uuid4

import grpc.aio
import pytest
import pytest_asyncio

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz._proto.envoy.service.accesslog.v3.als_pb2_grpc import AccessLogServiceStub
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from tests.support.gate import CONFIG, a_check, an_ending
from tests.support.processes import LOOPBACK
from tests.support.stack import GateProcess, Metrics

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="module")]

BUDGET = ("team:research", "lifetime")
TRUTH = 40 * 2_500 + 10 * 10_000
CALL_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Envoy:
    """What plays Envoy here: a connection to a server, and the server's books."""

    gate: GateProcess
    channel: grpc.aio.Channel

    async def check(self, reservation_id: str | None = None) -> CheckResponse:
        """Ask about a chat that holds money."""
        request = a_check(reservation_id=reservation_id)
        answer: CheckResponse = await AuthorizationStub(self.channel).Check(request, timeout=CALL_SECONDS_MAX)
        return answer

    async def log(self, *batches: StreamAccessLogsMessage) -> Metrics:
        """Send batches on a stream of their own, see it taken to its end, and read the books."""
        stream = AccessLogServiceStub(self.channel).StreamAccessLogs(timeout=CALL_SECONDS_MAX)
        for batch in batches:
            await stream.write(batch)
        await stream.done_writing()
        await stream
        return await self.gate.metrics()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def envoy() -> AsyncIterator[Envoy]:
    """Run one server for all."""
    async with (
        GateProcess(CONFIG) as gate,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{gate.grpc_port}") as channel,
    ):
        yield Envoy(gate, channel)


def ending(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log the end of a whole answer."""
    return an_ending(answer, input_tokens=40, output_tokens=10)


def aborted(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log that the client left, after another usage was seen."""
    message = an_ending(answer, input_tokens=40, output_tokens=99)
    entry_of(message).common_properties.response_flags.downstream_connection_termination = True
    return message


def failed(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log that the upstream failed."""
    message = ending(answer)
    entry_of(message).response.response_code.value = 500
    return message


def periodic(answer: CheckResponse) -> StreamAccessLogsMessage:
    """Log a sign of life."""
    message = ending(answer)
    entry_of(message).common_properties.access_log_type = AccessLogType.DownstreamPeriodic
    return message


def unanswered(reservation_id: str) -> StreamAccessLogsMessage:
    """Log the end of a request whose Check Envoy has no answer of."""
    entry = HTTPAccessLogEntry()
    entry.common_properties.access_log_type = AccessLogType.DownstreamEnd
    entry.request.request_headers["x-extauthz-id"] = reservation_id
    return StreamAccessLogsMessage(http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry]))


def with_hold(answer: CheckResponse, hold: str) -> CheckResponse:
    """Put another hold into an answer."""
    changed = CheckResponse()
    changed.CopyFrom(answer)
    changed.dynamic_metadata["extauthz.r"] = hold
    return changed


def replaced(text: str, place: int) -> str:
    """Put another letter at one place."""
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def entry_of(message: StreamAccessLogsMessage) -> HTTPAccessLogEntry:
    """Give the one entry of a batch."""
    return message.http_logs.log_entry[0]


def in_one_batch(*messages: StreamAccessLogsMessage) -> StreamAccessLogsMessage:
    """Join batches."""
    entries = [entry for message in messages for entry in message.http_logs.log_entry]
    return StreamAccessLogsMessage(http_logs=StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries))


Signals = Callable[[CheckResponse], list[StreamAccessLogsMessage]]


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param(lambda answer: [ending(answer), ending(answer)], id="the end twice"),
        pytest.param(lambda answer: [in_one_batch(ending(answer), ending(answer))], id="twice in one batch"),
        pytest.param(lambda answer: [ending(answer), aborted(answer)], id="an abort after the end"),
        pytest.param(lambda answer: [ending(answer), failed(answer)], id="a failure after the end"),
        pytest.param(lambda answer: [ending(answer), periodic(answer)], id="a sign of life after the end"),
        pytest.param(
            lambda answer: [periodic(answer), periodic(answer), ending(answer), periodic(answer), ending(answer)],
            id="all twice and mixed",
        ),
    ],
)
async def test_a_signal_that_comes_again_changes_nothing(envoy: Envoy, signals: Signals) -> None:
    """The first ending is booked, once; whatever follows neither books nor holds."""
    before = await envoy.gate.metrics()
    answer = await envoy.check()
    held = (await envoy.gate.metrics()).held[BUDGET]
    await envoy.log(*signals(answer))
    after = await envoy.log(*signals(answer))  # and all of it again, on another stream

    assert held > 0
    assert before.spent.get(BUDGET, 0) + TRUTH == after.spent[BUDGET]
    assert (0, 0) == (after.held[BUDGET], after.open)


async def test_a_release_that_comes_first_wins(envoy: Envoy) -> None:
    """A failure is logged, and then a settle of the same request comes from somewhere: it is not booked."""
    answer = await envoy.check()
    before = await envoy.gate.metrics()
    after = await envoy.log(failed(answer), ending(answer))

    assert before.spent == after.spent
    assert (0, 0) == (after.held[BUDGET], after.open)


async def test_an_ending_overtakes_its_check(envoy: Envoy) -> None:
    """Envoy gave up, and says so before the server has read the Check: nothing is held for nobody."""
    reservation_id = str(uuid4())
    await envoy.log(unanswered(reservation_id))
    answer = await envoy.check(reservation_id)
    after = await envoy.gate.metrics()

    assert 503 == answer.denied_response.status.code
    assert 0 == after.open


async def test_a_check_that_is_repeated_is_one_reservation(envoy: Envoy) -> None:
    """Envoy asks twice about one request: it is held once, and ends once."""
    reservation_id = str(uuid4())
    first = await envoy.check(reservation_id)
    once = await envoy.gate.metrics()
    second = await envoy.check(reservation_id)
    twice = await envoy.gate.metrics()
    after = await envoy.log(ending(first), ending(second))

    assert (1, 1) == (once.open, twice.open)
    assert once.held == twice.held
    assert twice.spent[BUDGET] + TRUTH == after.spent[BUDGET]
    assert (0, 0) == (after.held[BUDGET], after.open)


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda hold: "", id="empty"),
        pytest.param(lambda hold: "x" * 40_000, id="too long"),
        pytest.param(lambda hold: replaced(hold, hold.index(".") + 1), id="another signature"),
        pytest.param(lambda hold: replaced(hold, 0), id="another content"),
        pytest.param(lambda hold: hold.partition(".")[0], id="no signature"),
        pytest.param(lambda hold: hold.partition(".")[0] + ".", id="an empty signature"),
    ],
)
async def test_a_forged_hold_does_nothing(envoy: Envoy, forge: Callable[[str], str]) -> None:
    """It neither ends the reservation that it names nor books; it is counted."""
    answer = await envoy.check()
    hold = str(answer.dynamic_metadata["extauthz.r"])
    before = await envoy.gate.metrics()
    forged = await envoy.log(ending(with_hold(answer, forge(hold))), periodic(with_hold(answer, forge(hold))))
    after = await envoy.log(ending(answer))

    assert before.value("extauthz_holds_rejected_total") + 2 == forged.value("extauthz_holds_rejected_total")
    assert (before.spent, before.held, 1) == (forged.spent, forged.held, forged.open)
    assert forged.spent[BUDGET] + TRUTH == after.spent[BUDGET]


async def test_a_hold_of_another_server_does_nothing(envoy: Envoy) -> None:
    """Each memory store signs with a key of its own: after a restart, old holds are nobody's."""
    async with (
        GateProcess(CONFIG) as other,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{other.grpc_port}") as channel,
    ):
        answer = await Envoy(other, channel).check()
    before = await envoy.gate.metrics()
    after = await envoy.log(ending(answer))

    assert before.value("extauthz_holds_rejected_total") + 1 == after.value("extauthz_holds_rejected_total")
    assert before.spent == after.spent
