"""`extauthz reservations`: where money is held, and ending a reservation by hand."""

from __future__ import annotations

import time

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import Server
from extauthz.console.inputs import ReservationFilter
from extauthz.console.measures import Unit
from extauthz.console.text import cell, duration, exact, new_console, new_table, scope_short, until, wide

RESERVATIONS_MAX = 1000

# Where a reservation has room in one line.
ONE_LINE_WIDTH = 140


async def listed(server: Server, wanted: ReservationFilter) -> pb.ListReservationsResponse:
    """Give open reservations, the oldest first, at most RESERVATIONS_MAX."""
    request = pb.ListReservationsRequest(
        scope=wanted.scope, model=wanted.model, age_seconds_min=wanted.age_seconds_min, limit=RESERVATIONS_MAX
    )
    return await server.ask("ListReservations", request, pb.ListReservationsResponse)


async def release(server: Server, id_: str) -> bool:
    """End a reservation with no cost; False where it had ended before."""
    request = pb.ReleaseReservationRequest(id=id_)
    return (await server.ask("ReleaseReservation", request, pb.ReleaseReservationResponse)).released


def cut_off(answer: pb.ListReservationsResponse) -> str:
    """Tell that there may be more than an answer has; empty where it has all."""
    if len(answer.reservations) < RESERVATIONS_MAX:
        return ""
    return f"only the {RESERVATIONS_MAX:,} oldest are shown: choose by --scope, --model or --older"


def show(answer: pb.ListReservationsResponse, scope: str) -> None:
    """Print a table of reservations, with the USD that each holds of a scope, or of whichever it holds the most of."""
    console = new_console()
    whole = console.width >= ONE_LINE_WIDTH
    columns = ("id", "model", "age", "lease", "held", "of") if whole else ("id, model", "age", "held", "of")
    table = new_table(*columns, right=("age", "lease", "held"), tight=not wide(console))
    for reservation in answer.reservations:
        id_, model = cell(reservation.id), cell(reservation.model)
        age = duration(reservation.age_seconds)
        # Each scope holds as much of the estimate as it had left.
        amounts = (held.held_usd for held in reservation.held if scope in ("", held.scope) and Unit.of(held).in_usd)
        held = exact(max(amounts, default=0.0))
        scopes = cell(", ".join(dict.fromkeys(scope_short(held.scope) for held in reservation.held)))
        if whole:
            lease = until(reservation.lease_ends_at, time.time())
            table.add_row(id_, model, age, lease, held, scopes)
        else:
            table.add_row(id_.append("\n").append_text(model), age, held, scopes)
    if answer.reservations:
        console.print(table)
    console.print(f"{len(answer.reservations):,} shown of {answer.open:,} open")
