"""What an explanation says of prices and units, and how people read it."""

from decimal import Decimal

import pytest

from extauthz.adapters.explanations import explained
from extauthz.console.explanations import show
from extauthz.domain.prices import Estimate, Prices, Units
from extauthz.domain.routes import classify
from extauthz.domain.verdict import Decision, Pass, Reason
from extauthz.explanation import Explanation
from extauthz.pricing.catalog import PriceSource


def an_explanation(source: PriceSource, prices: Prices, units: Units) -> Explanation:
    """Explain a request for pictures."""
    decision = Decision(
        Pass(Reason.WITHIN_BUDGET), "inference", model="painter", estimate=Estimate(5, 0, 80_000, 90_000, units=units)
    )
    route = classify("POST", "/v1/images/generations", {}, ())
    return Explanation(decision, route, free=False, prices=prices, source=source, truncated=False, counted=())


def test_units_and_their_prices_are_told() -> None:
    """What is asked for besides tokens, what each costs, and who says so; what costs nothing is left out."""
    prices = Prices(Decimal("0.000001"), Decimal(0), per_image=Decimal("0.04"), per_second=Decimal(0))
    answer = explained(an_explanation(PriceSource.LIST, prices, Units(images=2, milliseconds=1_500)))

    assert {"image": 0.04} == answer.price.units_usd
    assert {"images": 2, "seconds": 1.5} == answer.estimate.units
    assert "genai-prices" == answer.price.source


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PriceSource.CONFIG, "by the configuration"),
        (PriceSource.LIST, "by the price list"),
        (PriceSource.UNKNOWN, "by unknown_price, for nobody else says it"),
    ],
)
def test_people_read_it(source: PriceSource, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints prices of units behind those of tokens, and who says so."""
    prices = Prices(Decimal("0.000001"), Decimal("0.000002"), per_image=Decimal("0.04"))
    show(explained(an_explanation(source, prices, Units(images=2))))
    text = " ".join(capsys.readouterr().out.split())

    assert f"1 input, 2 output, in USD per million tokens; 0.04 USD per image ({said})" in text
    assert "5 tokens in, 0 out, 2 images: 0.00008 USD, at most 0.00009" in text
