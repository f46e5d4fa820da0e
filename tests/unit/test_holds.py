"""The hold on its journey: signed, opaque, and of no use to a forger."""

import base64
import hmac
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.holds import HOLD_BYTES_MAX, PRICES_MAX, SEALED_CHARS_MAX, HoldCodec
from extauthz.domain.budgets import Counter, Filter, FilterKind, Measure, Scope, ScopeKind
from extauthz.domain.prices import Estimate, Prices, Rates, Units
from extauthz.domain.reservation import Hold, promise_name, public_id
from extauthz.domain.windows import Window
from extauthz.errors import HoldRejectedError
from extauthz.pricing.amounts import TIERS
from extauthz.pricing.cost import LENGTHS_MAX

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
    priced_by="0123456789ab",
)

MEASURED = (
    Counter(HOLD.counters[0].scope, HOLD.counters[1].window, Measure.TOKENS, Filter(FilterKind.MODEL, "a/b | c")),
    Counter(HOLD.counters[1].scope, HOLD.counters[0].window, Measure.REQUESTS),
)

# A hold as version 3 wrote it: prices stand with the rest, and counters by their parts.
BEFORE_JSON = [
    3,
    HOLD.id,
    HOLD.reserved_at_ms,
    HOLD.model,
    True,
    3,
    384_000,
    {"i": "1.5E-7", "o": "0.00001", "r": "0"},
    {"i": "0", "o": "0.000002"},
    [12, 512, 5_121_800, 99_000_000, 100],
    [
        ["global", [], "lifetime", 0, None],
        ["member", ["a/b", "ü|n"], "1mo", 1_788_000_000_000, 1_791_000_000_000],
    ],
    "0123456789ab",
    False,
]

AMOUNTS = st.decimals(min_value=0, max_value=1, allow_nan=False, allow_infinity=False, places=20)
RATES = st.fixed_dictionaries(
    {"input": AMOUNTS, "output": AMOUNTS},
    optional={kind: AMOUNTS for kind in Rates.__slots__ if kind not in {"input", "output"}},
)
BASES = st.builds(
    lambda rates, above, guessed: replace(
        Prices(**rates),
        above=tuple((length, Rates(**longer)) for length, longer in sorted(above.items())),
        guessed_input=guessed,
        guessed_output=not guessed,
    ),
    RATES,
    st.dictionaries(st.integers(1, 10**6), RATES, max_size=3),
    st.booleans(),
)
PRICES = st.builds(
    lambda base, tiers: replace(base, tiers=tuple(tiers.items())),
    BASES,
    st.dictionaries(st.sampled_from(("batch", "flex", "priority")), BASES, max_size=3),
)


def codec(key: bytes | None = b"k" * 32) -> HoldCodec:
    """Make the codec of a process that has this key."""
    return HoldCodec(lambda: key)


def signed(hold: Hold = HOLD) -> str:
    """Sign a hold."""
    text = codec().encode(hold)
    assert text is not None
    return text


def sealed(document: list[object]) -> str:
    """Sign what is written as some other version would be."""
    payload = base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.digest(b"k" * 32, payload, "sha256")[:16]).rstrip(b"=")
    return f"{payload.decode()}.{mac.decode()}"


@pytest.mark.parametrize(
    "hold",
    [
        pytest.param(HOLD, id="with everything"),
        pytest.param(replace(HOLD, whole_prices=None), id="of a body that was seen to its end"),
        pytest.param(replace(HOLD, tokens_max=None), id="of a model whose context nobody knows"),
        pytest.param(replace(HOLD, free=True), id="of what passed as free"),
        pytest.param(
            replace(HOLD, estimate=replace(HOLD.estimate, units=Units(1, 2, 3, 4, 5), flat_nanousd=6)), id="with units"
        ),
        pytest.param(replace(HOLD, counters=(*HOLD.counters, *MEASURED)), id="of tokens and requests of some models"),
    ],
)
def test_a_hold_comes_back_as_it_left(hold: Hold) -> None:
    """Every field survives the journey, prices to the last digit."""
    assert hold == codec().decode(signed(hold))


@given(PRICES, st.none() | PRICES)
def test_prices_come_back_as_they_left(prices: Prices, whole_prices: Prices | None) -> None:
    """Rates of every kind, length and tier survive the journey, and so does what has none."""
    hold = replace(HOLD, prices=prices, whole_prices=whole_prices)

    assert hold == codec().decode(signed(hold))


def test_a_hold_of_the_version_before_is_read() -> None:
    """While servers are replaced, requests that older ones let through are still under way."""
    assert HOLD == codec().decode(sealed(BEFORE_JSON))


@pytest.mark.parametrize("version", [2, 4, 5, "3", None])
def test_other_versions_are_not_guessed_at(version: object) -> None:
    """A hold that somebody else's rules are for is no hold here."""
    with pytest.raises(HoldRejectedError):
        codec().decode(sealed([version, *BEFORE_JSON[1:]]))


def test_prices_travel_as_what_they_differ_in() -> None:
    """A tier that has one rate of its own takes less room than the base."""
    plain = replace(HOLD, prices=Prices(Decimal("1.5e-7"), Decimal("0.00001"), cache_read_input=Decimal("1.5e-8")))
    tier = replace(plain.prices, input=Decimal("3e-7"))

    assert (
        len(signed(replace(plain, prices=replace(plain.prices, tiers=(("priority", tier),)))))
        < len(signed(plain)) + len(base64.b64encode(b',"T":[["priority",{"i":"3E-7"}]]')) + 4
    )


def test_the_largest_hold_fits() -> None:
    """Whatever a configuration says of prices, and however long the payers' names are, its holds are read again."""
    long = Rates(**{kind: Decimal(f"0.{number:020}") for number, kind in enumerate(Rates.__slots__, 10**18)})
    lengths = tuple(
        (
            1_000 * number,
            replace(long, **{kind: getattr(long, kind) + Decimal(number) for kind in Rates.__slots__}),
        )
        for number in range(1, LENGTHS_MAX + 1)
    )
    base = Prices(Decimal(1), Decimal(1), above=lengths)
    prices = replace(base, tiers=tuple((tier, base) for tier in TIERS.values()))
    windows = [Window(f"{number}d", 0, 10**12) for number in range(8)]
    counts = {ScopeKind.GLOBAL: 0, ScopeKind.ANONYMOUS: 0, ScopeKind.MEMBER: 2}
    scopes = [Scope(kind, ("\0" * 256,) * counts.get(kind, 1)) for kind in ScopeKind]
    hold = replace(
        HOLD,
        prices=prices,
        whole_prices=prices,
        counters=tuple(Counter(scope, window) for scope in scopes for window in windows),
    )

    assert hold == codec().decode(signed(hold))


def test_a_hold_that_nobody_would_read_is_not_written() -> None:
    """On more counters than it has room for, it is an error: the request is refused, and not counted nowhere."""
    window = Window("lifetime", 0, None)
    long = tuple(
        Counter(Scope(ScopeKind.TAG, ("\0" * 250 + str(number),)), window, Measure.TOKENS) for number in range(600)
    )

    with pytest.raises(ValueError, match="600 counters"):
        codec().encode(replace(HOLD, counters=long))


def test_prices_of_another_model_are_not_mistaken() -> None:
    """What is remembered of prices belongs to those prices: holds of many models pass through one codec, and back."""
    shared = codec()
    for number in range(2 * PRICES_MAX):
        hold = replace(HOLD, prices=Prices(Decimal(number), Decimal(1)))  # the one before is gone by now

        assert hold == shared.decode(shared.encode(hold) or "")


def test_prices_cannot_be_exchanged() -> None:
    """Prices stand apart, and are signed with the hold that they are of: those of another hold are refused."""
    own, other = signed().split("."), signed(replace(HOLD, prices=Prices(Decimal(0), Decimal(0)))).split(".")

    with pytest.raises(HoldRejectedError):
        codec().decode(".".join((own[0], other[1], own[2])))


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


NAME = promise_name("resp_1")


def test_a_name_comes_back_as_it_was_sealed() -> None:
    """A sealed name is no longer than is believed, and is read back by the same store."""
    text = codec().seal(NAME)

    assert text is not None
    assert len(text) == SEALED_CHARS_MAX
    assert NAME == codec().unseal(text)
    assert codec(None).seal(NAME) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(codec(b"x" * 32).seal(NAME), id="of another store"),
        pytest.param(NAME, id="not sealed"),
        pytest.param(f"{promise_name('resp_2')}.{str(codec().seal(NAME)).partition('.')[2]}", id="another name"),
        pytest.param(signed(), id="a hold"),
        pytest.param("ü.ü", id="no base64"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_forged_name_is_refused(text: str) -> None:
    """Whoever has not the store's key can name no promise."""
    with pytest.raises(HoldRejectedError):
        codec().unseal(text)


def test_a_sealed_name_is_no_hold() -> None:
    """What signs a name signs no hold."""
    payload = base64.urlsafe_b64encode(b"[]").decode()
    with pytest.raises(HoldRejectedError):
        codec().decode(str(codec().seal(payload)))


def test_clients_see_a_hash() -> None:
    """What a client may quote to support cannot end a reservation."""
    assert "6f1c" not in public_id("6f1c")
    assert len(public_id("6f1c")) == 16
