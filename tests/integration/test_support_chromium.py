"""The browser that other tests trust: it shows pages, takes keys, tells what a screen reader finds and what failed."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.support.chromium import Chromium
from tests.support.processes import LOOPBACK, eventually, free_port

PAGE = """
<!doctype html><html lang="en"><head><title>Budgets</title>
  <meta name="viewport" content="width=device-width"><style>
  body { margin: 0; font: 20px sans-serif; background: white }
  @media (prefers-color-scheme: dark) { body { background: black } }
  @media (max-width: 500px) { main { display: none } } footer { height: 2000px }
</style></head><body>
  <main><h1>Money</h1><button onclick="this.textContent = 'pressed'">Show</button><input aria-label="Filter"></main>
  <div aria-hidden="true">decoration</div><footer></footer>
</body></html>
"""


def page_of(html: str) -> str:
    """Give an address that is the page itself."""
    return f"data:text/html,{quote(html)}"


def size_of(png: bytes) -> tuple[int, int]:
    """Give width and height of a PNG."""
    assert png.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    """Run a browser that shows PAGE."""
    async with Chromium() as running:
        await running.open(page_of(PAGE))
        yield running


async def test_evaluates_in_the_page(browser: Chromium) -> None:
    """A value comes back as it is, a promise's when it is kept; what throws fails."""
    assert {"title": "Budgets", "one": 1} == await browser.evaluate("({title: document.title, one: 1})")
    assert "later" == await browser.evaluate("new Promise(done => setTimeout(() => done('later'), 10))")
    assert None is await browser.evaluate("null")
    with pytest.raises(AssertionError, match="no such thing"):
        await browser.evaluate("throw new Error('no such thing')")


async def test_sizes_and_schemes(browser: Chromium) -> None:
    """Pages follow the size and the colour scheme, and a screenshot has all of the page or what is in view."""
    wide, all_of_it = size_of(await browser.screenshot(whole=False)), size_of(await browser.screenshot())
    await browser.resize(390, 844, mobile=True, dark=True)
    narrow = size_of(await browser.screenshot(whole=False))
    shown = await browser.evaluate("getComputedStyle(document.querySelector('main')).display")
    background = await browser.evaluate("getComputedStyle(document.body).backgroundColor")

    assert (1280, 800) == wide
    assert all_of_it[1] > 2000
    assert (390, 844) == narrow
    assert "none" == shown
    assert "rgb(0, 0, 0)" == background


async def test_text_has_letters(browser: Chromium) -> None:
    """A font is there: letters differ in width, and leave marks in a screenshot."""
    blank = page_of("<body>")
    widths = await browser.evaluate(
        "(context => ['i', 'W'].map(letter => context.measureText(letter).width))"
        "(Object.assign(document.createElement('canvas').getContext('2d'), {font: '20px sans-serif'}))"
    )
    written = await browser.screenshot(whole=False)
    await browser.open(blank)

    assert isinstance(widths, list)
    assert 0 < float(str(widths[0])) < float(str(widths[1]))
    assert len(await browser.screenshot(whole=False)) < len(written)


async def test_takes_keys(browser: Chromium) -> None:
    """Tab goes from one control to the next and back, Enter presses a button, and letters are typed."""
    focused = "document.activeElement.tagName"
    await browser.press("Tab")
    await browser.press("Enter")
    assert "pressed" == await browser.evaluate("document.activeElement.textContent")
    await browser.press("Tab")
    for letter in "a b":
        await browser.press(letter)
    assert "a b" == await browser.evaluate("document.activeElement.value")
    await browser.press("Tab", shift=True)
    assert "BUTTON" == await browser.evaluate(focused)


async def test_tells_what_a_screen_reader_finds(browser: Chromium) -> None:
    """The accessibility tree names headings and controls, and leaves out what is hidden from it."""
    found = await browser.accessible()

    assert ("heading", "Money") in found
    assert ("button", "Show") in found
    assert ("textbox", "Filter") in found
    assert not any("decoration" in name for _, name in found)
    assert "none" not in {role for role, _ in found}


async def test_tells_what_went_wrong(browser: Chromium) -> None:
    """Errors that nobody caught, errors that a script wrote, and files that did not load are in `console`."""
    assert [] == browser.console
    await browser.open(page_of("<script>console.error('written'); nothing.here()</script>"))

    def complaints() -> bool:
        text = " ".join(browser.console)
        return "written" in text and "nothing is not defined" in text

    await eventually(complaints, what="the console has both errors")


async def test_fails_where_no_page_is(browser: Chromium) -> None:
    """A page that nobody serves is a failure and not an empty page."""
    with pytest.raises(AssertionError, match="ERR_CONNECTION_REFUSED"):
        await browser.open(f"http://{LOOPBACK}:{free_port()}/")
