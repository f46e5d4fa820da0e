"""Long work in short pieces."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.ledger.pieces import PIECE, chunks, first, paced


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE + 7])
@pytest.mark.parametrize("count_max", [0, 1, PIECE, 10 * PIECE])
async def test_first(count: int, count_max: int) -> None:
    """The first of any number of items come in the order of their keys, and no more of them than wanted."""
    items = [(number * 7919 % 1009, number) for number in range(count)]

    assert sorted(items)[:count_max] == await first(items, count_max, key=lambda item: item)


async def test_others_have_a_turn_between_pieces() -> None:
    """Between any two pieces the event loop does something else; one piece is done without a break."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    seen = [turns async for _ in paced(range(3 * PIECE))]
    task.cancel()

    assert [0, 1, 2] == seen


def test_chunks() -> None:
    """Nothing is left out, and nothing makes no piece."""
    assert [[1, 2], [3]] == [*chunks([1, 2, 3], 2)]
    assert [] == [*chunks([], 2)]
