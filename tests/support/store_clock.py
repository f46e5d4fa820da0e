"""A clock in the test's hand for ledgers on Redis: the scripts as they are, but for the line that asks for the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha1
from unittest.mock import patch

from extauthz.ledger import redis
from extauthz.ledger.redis import RedisLedger
from extauthz.ledger.script import Script

ASKS_THE_SERVER = "local clock = redis.call('TIME')\n"
READS_A_KEY = """\
local told_ms = redis.call('GET', (string.gsub(KEYS[1], 'spent$', 'clock'))) or 0
local clock = { math.floor(told_ms / 1000), told_ms % 1000 * 1000 }
"""


@contextmanager
def told_the_time() -> Iterator[None]:
    """Let ledgers that are opened inside the block go by the time that `tell_time` told them last, at first by 1970."""
    scripts = tuple(map(_reading_a_key, redis.SCRIPTS))
    with ExitStack() as patched:
        patched.enter_context(patch.object(redis, "SCRIPTS", scripts))
        for script in scripts:
            patched.enter_context(patch.object(redis, script.name.upper(), script))
        yield


async def tell_time(ledger: RedisLedger, now_ms: int) -> None:
    """Let it be that time for a ledger, in Unix milliseconds, until it is told another."""
    await ledger.link.ask("SET", f"{{{ledger.keys.tag}}}:clock", now_ms)


def _reading_a_key(script: Script) -> Script:
    assert script.source.count(ASKS_THE_SERVER) == 1, "the prelude asks for the time in another way"
    source = script.source.replace(ASKS_THE_SERVER, READS_A_KEY)
    return Script(script.name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())
