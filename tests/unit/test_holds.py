"""The hold on its journey: signed, opaque, and of no use to a forger."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.holds import HOLD_BYTES_MAX, HoldCodec
from extauthz.domain.budgets import Counter, Scope, ScopeKind
from extauthz.domain.prices import Estimate, Prices
from extauthz.domain.reservation import Hold, public_id
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
    tokens_max=384_000,
)


def codec(key: bytes | None = b"k" * 32) -> HoldCodec:
    """Make the codec of a process that has this key."""
    return HoldCodec(lambda: key)


def signed(hold: Hold = HOLD) -> str:
    """Sign a hold."""
    text = codec().encode(hold)
    assert text is not None
    return text


@pytest.mark.parametrize(
    "hold",
    [
        pytest.param(HOLD, id="with everything"),
        pytest.param(replace(HOLD, whole_prices=None), id="of a body that was seen to its end"),
        pytest.param(replace(HOLD, tokens_max=None), id="of a model whose context nobody knows"),
    ],
)
def test_a_hold_comes_back_as_it_left(hold: Hold) -> None:
    """Every field survives the journey, prices to the last digit."""
    assert hold == codec().decode(signed(hold))


def test_another_store_cannot_read_it() -> None:
    """The signature is the store's own."""
    with pytest.raises(HoldRejectedError):
        codec(b"other" * 8).decode(signed())


def test_without_a_key_nothing_is_signed() -> None:
    """A process that never reached its store has nothing to sign with, and makes no key up."""
    assert codec(None).encode(HOLD) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(signed(), id="a good one"),
        pytest.param(HoldCodec(lambda: b"").encode(HOLD) or "", id="one that is signed with nothing"),
        pytest.param("", id="nothing"),
    ],
)
def test_without_a_key_nothing_is_believed(text: str) -> None:
    """A process that cannot tell a forger from its own believes neither."""
    with pytest.raises(HoldRejectedError):
        codec(None).decode(text)


def test_the_key_may_come_later() -> None:
    """The store's key is asked for each time: once it is reached, holds are signed and read."""
    key: bytes | None = None
    waiting = HoldCodec(lambda: key)
    before = waiting.encode(HOLD)
    key = b"k" * 32

    assert before is None
    assert signed() == waiting.encode(HOLD)
    assert HOLD == waiting.decode(signed())


@given(st.data())
def test_no_changed_character_passes(data: st.DataObject) -> None:
    """A hold that was tampered with anywhere is no hold."""
    text = signed()
    # The last character of the MAC carries two bits that base64 drops.
    index = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.sampled_from("AZaz09-_.").filter(lambda character: character != text[index]))

    with pytest.raises(HoldRejectedError):
        codec().decode(text[:index] + other + text[index + 1 :])


@given(st.text(max_size=100))
def test_no_text_raises_anything_else(text: str) -> None:
    """Garbage is rejected, never a crash."""
    with pytest.raises(HoldRejectedError):
        codec().decode(text)


def test_size_is_bounded() -> None:
    """A huge string is refused before any work is done on it."""
    with pytest.raises(HoldRejectedError):
        codec().decode("x" * (HOLD_BYTES_MAX + 1))


def test_clients_see_a_hash() -> None:
    """What a client may quote to support cannot end a reservation."""
    assert "6f1c" not in public_id("6f1c")
    assert len(public_id("6f1c")) == 16
