"""The hold on its journey: signed, opaque, and of no use to a forger."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.holds import HOLD_BYTES_MAX, HoldCodec, public_id
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.reservation import Hold
from extauthz.domain.windows import Window
from extauthz.errors import HoldRejectedError

HOLD = Hold(
    id="6f1c",
    reserved_at_ms=1_790_000_000_000,
    counters=(
        Counter(Scope(ScopeKind.GLOBAL), Window("lifetime", 0, None)),
        Counter(Scope(ScopeKind.MEMBER, ("a/b", "ü|n")), Window("1mo", 1_788_000_000_000, 1_791_000_000_000)),
    ),
    model="openai/gpt-4o",
    prices=Prices(Decimal("1.5e-7"), Decimal("0.00001"), cache_read_input=Decimal(0)),
    estimate=Estimate(12, 512, 5_121_800, 99_000_000, 100),
    streamed=True,
    choices=3,
    whole_prices=Prices(Decimal(0), Decimal("2e-6")),
)


def test_a_hold_comes_back_as_it_left() -> None:
    """Every field survives the journey, prices to the last digit."""
    codec = HoldCodec(b"k" * 32)

    assert codec.decode(codec.encode(HOLD)) == HOLD


def test_another_store_cannot_read_it() -> None:
    """The signature is the store's own."""
    with pytest.raises(HoldRejectedError):
        HoldCodec(b"other" * 8).decode(HoldCodec(b"k" * 32).encode(HOLD))


@given(st.data())
def test_no_changed_character_passes(data: st.DataObject) -> None:
    """A hold that was tampered with anywhere is no hold."""
    codec = HoldCodec(b"k" * 32)
    text = codec.encode(HOLD)
    # The last character of the MAC carries two bits that base64 drops.
    index = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.sampled_from("AZaz09-_.").filter(lambda character: character != text[index]))

    with pytest.raises(HoldRejectedError):
        codec.decode(text[:index] + other + text[index + 1 :])


@given(st.text(max_size=100))
def test_no_text_raises_anything_else(text: str) -> None:
    """Garbage is rejected, never a crash."""
    with pytest.raises(HoldRejectedError):
        HoldCodec(b"k" * 32).decode(text)


def test_size_is_bounded() -> None:
    """A huge string is refused before any work is done on it."""
    with pytest.raises(HoldRejectedError):
        HoldCodec(b"k" * 32).decode("x" * (HOLD_BYTES_MAX + 1))


def test_clients_see_a_hash() -> None:
    """What a client may quote to support cannot end a reservation."""
    assert "6f1c" not in public_id("6f1c")
    assert len(public_id("6f1c")) == 16
