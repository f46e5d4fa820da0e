"""When budgets reset, held against LiteLLM's own function."""

from __future__ import annotations

import json
import subprocess
from datetime import time
from itertools import product
from random import Random

import pytest

from extauthz.domain.windows import WindowRule, parse_duration
from tests.support.litellm import ENVIRONMENT, NEEDED, PROGRAM

pytestmark = [NEEDED, pytest.mark.litellm]

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"]
DURATIONS = ["30s", "1m", "15m", "1h", "6h", "12h", "24h", "1d", "7d", "1w", "weekly", "30d", "monthly", "1mo"]
RESET_TIMES = ["00:00", "06:30", "23:59"]

# Two years from 2026 on. At so many instants one meets nights when a clock jumps only now and then, and LiteLLM's reset
# on such a night is the same one.
FIRST_S, LAST_S = 1_767_225_600, 1_830_297_600
INSTANTS = 40

ASK = """
import json, sys
from datetime import datetime, time, timezone
from litellm.litellm_core_utils.duration_parser import get_next_standardized_reset_time as reset
for zone, duration, at, now_s in json.load(sys.stdin):
    print(int(reset(duration, datetime.fromtimestamp(now_s, timezone.utc), zone, time.fromisoformat(at)).timestamp()))
"""


def test_resets_are_litellms() -> None:
    """What docs/budgets.md does not name as other than in LiteLLM resets when LiteLLM says."""
    random = Random(1)
    asked = [
        (*row, random.randrange(FIRST_S, LAST_S))
        for row in product(ZONES, DURATIONS, RESET_TIMES)
        for _ in range(INSTANTS)
    ]
    answers = subprocess.run(
        [PROGRAM.with_name("python"), "-c", ASK],
        input=json.dumps(asked),
        env=dict(ENVIRONMENT),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout.split()

    ours = [
        WindowRule(parse_duration(duration), zone, reset_time=time.fromisoformat(at)).at(now_s * 1000).end_ms
        for zone, duration, at, now_s in asked
    ]
    assert [] == [
        (row, theirs, end_ms)
        for row, theirs, end_ms in zip(asked, answers, ours, strict=True)
        if int(theirs) * 1000 != end_ms
    ]
