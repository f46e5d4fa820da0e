"""How verbs are written for scripts."""

from __future__ import annotations

import pytest

from extauthz.domain.budgets import Before
from extauthz.domain.reservation import Claim
from extauthz.domain.windows import Window
from extauthz.ledger.base import Reserve
from extauthz.ledger.items import repeated_item, reserve_item
from tests.support.ledger import LEASE, a_counter, a_hold

YESTERDAY, TODAY = Window("1d", 0, 1000), Window("1d", 1000, 2000)
COUNTED = a_counter()
LIMITED = a_counter(window=TODAY, before=Before(a_counter(window=YESTERDAY), 7))


@pytest.mark.parametrize(
    ("granted", "amounts"),
    [
        pytest.param((b"30", b"20"), ("30", "20"), id="what was granted"),
        pytest.param((), ("50", "60"), id="what was asked for, where nothing is said"),
    ],
)
def test_a_reserve_that_is_repeated(granted: tuple[bytes, ...], amounts: tuple[str, str]) -> None:
    """It asks for what was granted before, with no limit, no time, and nothing to carry over."""
    request = Reserve(
        a_hold("a", (COUNTED, LIMITED), reserved_at_ms=1500),
        "first",
        (Claim(COUNTED, None, 50), Claim(LIMITED, 100, 60, whole=True)),
        LEASE,
        not_after_ms=1600,
    )
    item = reserve_item(request)
    named = item[:6]

    assert (*named, "1600", "", "2") == item[:9]
    assert (COUNTED.key, "", "50", "", LIMITED.key, "100", "60", "1") == item[9:17]
    assert ("1", LIMITED.key, a_counter(window=YESTERDAY).key, "7") == item[17:]
    assert repeated_item(item, granted) == (
        *(*named, "", "1", "2"),
        *(COUNTED.key, "", amounts[0], ""),
        *(LIMITED.key, "", amounts[1], "1"),
        "0",
    )
