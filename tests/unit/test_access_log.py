"""What the access log may make the server do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from extauthz._proto.envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
    HTTPRequestProperties,
)
from extauthz._proto.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from extauthz.adapters.access_log import AccessLogs
from extauthz.adapters.holds import HoldCodec
from extauthz.config.model import Settings
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from extauthz.settlement import Settlement
from extauthz.telemetry.log import Reporter, new_logger
from extauthz.telemetry.metrics import Metrics

KEY = b"k" * 32


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
    telemetry = Reporter(Metrics(), new_logger())
    ledger = MemoryLedger(lambda: 0, KEY)
    usual = UsualAnswer(UsualTokens(1), UsualTokens(0))
    service = AccessLogs(Settlement(ledger, Settings, usual, telemetry), HoldCodec(lambda: KEY), telemetry, asyncio.Event())
    entry = HTTPAccessLogEntry(
        common_properties=AccessLogCommon(access_log_type=AccessLogType.DownstreamEnd),
        request=HTTPRequestProperties(request_headers={"x-extauthz-id": header}),
    )
    logs = StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry])

    async def messages() -> AsyncIterator[StreamAccessLogsMessage]:
        yield StreamAccessLogsMessage(http_logs=logs)

    await service.StreamAccessLogs(messages(), None)  # type: ignore[arg-type]  # it needs no context

    assert remembered == len(ledger._tombstones._early)
