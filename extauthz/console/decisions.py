"""`extauthz watch`: decisions as they are made, a line each."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import ServerAwayError, connected
from extauthz.console.inputs import DecisionFilter
from extauthz.console.target import Target
from extauthz.console.text import clean, clock, milliseconds, scope_short

STYLES = {"allow": "green", "deny": "red", "defer": "magenta", "shadow_deny": "yellow"}


async def watch(
    target: Target,
    wanted: DecisionFilter,
    tell: Callable[[pb.WatchDecisionsResponse], None],
    begun: Callable[[], None],
) -> None:
    """Tell decisions until the server goes away, which is a ServerAwayError; none is overlooked after `begun`."""
    request = pb.WatchDecisionsRequest(
        decisions=wanted.decisions,
        reasons=wanted.reasons,
        scope=wanted.scope,
        model=wanted.model,
        sample=wanted.sample,
    )
    async with connected(target) as server:
        async for seen in server.stream("WatchDecisions", request, pb.WatchDecisionsResponse, begun=begun):
            tell(seen)
    raise ServerAwayError(f"the server at {target.address} ended the stream: it stops")


def show(console: Console, seen: pb.WatchDecisionsResponse) -> None:
    """Print one decision, and before it how many were not shown."""
    if seen.missed:
        console.print(Text(f"… {seen.missed} more, which came faster than they could be shown", "dim"))
    console.print(line(seen), soft_wrap=True)


def line(seen: pb.WatchDecisionsResponse) -> Text:
    """Write one decision: when, what and why, who asked for what, and how long it took."""
    decision = seen.decision
    style = STYLES.get(decision.decision, "")
    words = [
        Text(clock(seen.decided_at), "dim"),
        Text(f"{clean(decision.decision):11}", style),
        Text(clean(decision.reason) + (f" ({decision.status})" if decision.status else ""), style),
    ]
    if decision.scope:
        words.append(Text(clean(scope_short(decision.scope)), "bold"))
    about = (seen.method, seen.path, seen.model, scope_short(seen.principal))
    words += [Text(clean(word)) for word in about if word]
    words.append(Text(milliseconds(seen.seconds), "dim"))
    return Text("  ").join(words)
