"""What stands where in Redis.

All keys share one hash tag, so that one script can touch any of them, on a Cluster too. Their number is fixed, however
many counters and reservations there are: every script declares all of them, and ends a reservation of which it knows
only the id. In the order in which scripts get them, with the tag `extauthz`:

| key | type | what stands in it |
|---|---|---|
| `{extauthz}:spent` | hash | counter → what was settled |
| `{extauthz}:held` | hash | counter → the sum of what open reservations hold on it; absent means 0 |
| `{extauthz}:windows` | sorted set | counters whose window ends, by the time from which they can be dropped |
| `{extauthz}:open` | hash | reservation id → `<expiry> <attempt> <reserved at> <model>[ <counter> <amount>]…` |
| `{extauthz}:leases` | sorted set | reservation ids, by the end of their lease |
| `{extauthz}:journal` | stream | what happened to money: endings, corrections, imports |
| `{extauthz}:checkpoint` | hash | counter → what the journal's entries added that were trimmed |
| `{extauthz}:meta` | hash | `signing_key`, `version`, stream ids (`checkpoint_at`, `restored_to`), times, and carries |
| `{extauthz}:granted` | hash | counter → what its limit is higher by, in its window |
| `{extauthz}:limits` | hash | `<scope>|<label>` → the limit that stands in for the configured one |
| `{extauthz}:withdrawn:0`, `:1` | sets | releases that came before their reserve: `<id>` or `<id>|<attempt>` |
| `{extauthz}:ended:0` … `:4` | hashes | reservation id → `settled`, `released` or `expired <booked> <counter>…` |
| `{extauthz}:promised:0` … `:2` | hashes | SHA-256 of an answer's id → the signed hold of what is still to be made |

Beside them `{extauthz}:checkpoint:new` is there while `audit --rebuild FILE` makes a checkpoint, and for a time each
`{extauthz}:announced:<name>` that one process announced for all (the SHA-256 of a name that is longer than
ANNOUNCED_NAME_BYTES_MAX); no script touches those, and Redis itself lets them expire.
With `directory: store` there are `{extauthz}:directory:*` as well, which are no affair of the books
(directories/store/redis.py).

A counter is `<scope>|<label>|<start>|<end>` or `<scope>|lifetime…` (domain/budgets.py). Its amounts are in its measure,
which its label names: nano-USD, tokens or requests. Times are Unix milliseconds of the Redis server.

Where budgets roll over, a carry is `carried|<counter>` → `<limit> <counter>`: what was spent on the first beyond the
limit has been taken over by the second, that of the next window. It goes with the first, which stays for the whole of
the next window. The limit is `-` in restored books, and what changes there is carried no further.

`<expiry>` and `<booked>` say what one request used, in a word: `<nano-USD>,<tokens>,<requests>` where any of its
counters is in tokens or requests, and else `<nano-USD>` alone (amounts.py). So books in USD alone are as they were
before there were other measures, and programs of before and after that keep them side by side. Those of before cannot
count anything else: they must be gone when the first budget in tokens or requests comes.

Endings are kept for the retention: five generations, each a quarter of it long, so that one is dropped whole when its
youngest is old enough. A key and an expiry for each ending would need 1.6 to 1.9 times the memory
(bench/redis_memory.py). Promises are kept for twice the retention, in three generations, each as long as that.
"""

from __future__ import annotations

from hashlib import sha256

VERSION = "1"

ENDED_GENERATIONS = 5
WITHDRAWN_GENERATIONS = 2
PROMISED_GENERATIONS = 3

ANNOUNCED_NAME_BYTES_MAX = 512

NAMES = (
    "spent",
    "held",
    "windows",
    "open",
    "leases",
    "journal",
    "checkpoint",
    "meta",
    "granted",
    "limits",
    *(f"withdrawn:{generation}" for generation in range(WITHDRAWN_GENERATIONS)),
    *(f"ended:{generation}" for generation in range(ENDED_GENERATIONS)),
    *(f"promised:{generation}" for generation in range(PROMISED_GENERATIONS)),
)


class Keys:
    """The keys under one tag."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all = tuple(f"{{{tag}}}:{name}" for name in NAMES)
        self.probes = (f"{{{tag}}}:probe:0", f"{{{tag}}}:probe:1")
        self.spent, self.held, self.windows, self.open, self.leases, self.journal, self.checkpoint, self.meta = (
            self.all[:8]
        )
        self.granted, self.limits = self.all[8:10]

    def announced(self, name: str) -> str:
        """Give the key of an announcement."""
        encoded = name.encode()
        short = name if len(encoded) <= ANNOUNCED_NAME_BYTES_MAX else sha256(encoded).hexdigest()
        return f"{{{self.tag}}}:announced:{short}"
