"""What the operators' commands make of a server's answers: words, JSON, and the picture of `extauthz top`."""

from __future__ import annotations

import json

import pytest
import yaml
from google.protobuf.json_format import Parse
from rich.console import Console

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as messages
from extauthz.console import reservations
from extauthz.console.documents import document, json_line, yaml_line
from extauthz.console.explanations import show
from extauthz.console.frame import View, frame
from extauthz.console.load import HISTORY_MAX, Load, next_load
from extauthz.console.text import amount, clean, duration, exact, milliseconds, scope_short, short

NOW_S = 1_795_000_000.0
STEERING = "a\x1b[2Jb\r\nc\u202ed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (7_260, "2 h 1 min"),
        (86_400, "1 d"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A time is written in the two units that matter."""
    assert text == duration(seconds)


def test_amounts() -> None:
    """Amounts have as many digits as their place has room for, and more where they are small."""
    assert ["0.0", "10.0", "0.000000001", "-0.5"] == [exact(usd) for usd in (0, 10, 1e-9, -0.5)]
    assert ["0.00", "10.00", "0.0982", "0.000124", "-0.50"] == [amount(usd) for usd in (0, 10, 0.0982, 0.000124, -0.5)]
    assert ["0.00", "12,345.68", "0.0124"] == [short(usd) for usd in (0, 12_345.678, 0.01239)]
    assert ["0.42 ms", "2.1 ms", "1,500 ms"] == [milliseconds(seconds) for seconds in (0.00042, 0.0021, 1.5)]


def test_a_reservation_shows_what_it_holds_of_the_scope_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Scopes hold as much as they have left: the most of all is shown, or that of the scope which was named."""
    held = [
        messages.Reservation.Held(scope=scope, held_usd=usd) for scope, usd in (("global", 0.007), ("team:a", 0.005))
    ]
    answer = messages.ListReservationsResponse(reservations=[messages.Reservation(id="r", held=held)], open=1)

    reservations.show(answer, "")
    of_all = capsys.readouterr().out
    reservations.show(answer, "team:a")
    of_team = capsys.readouterr().out

    assert ("0.007" in of_all, "0.005" in of_all) == (True, False)
    assert ("0.007" in of_team, "0.005" in of_team) == (False, True)


def test_scopes_of_keys_are_short_in_lines() -> None:
    """The hash of a key is cut, other scopes are not."""
    assert ["key:abababab…", "team:research", "key:ab"] == [
        scope_short(scope) for scope in (f"key:{'ab' * 32}", "team:research", "key:ab")
    ]


def test_nothing_steers_the_terminal() -> None:
    """Control characters and those that turn a line around become a mark; all others stay as they are."""
    assert "a\ufffd[2Jb\ufffd\ufffdc\ufffdd" == clean(STEERING)
    assert "modèle 日本" == clean("modèle 日本")
    assert json_line(STEERING).isascii()


def test_a_line_of_an_export_is_read_back() -> None:
    """What is exported is what an import reads, letters beyond 16 bits as well, and steers no terminal."""
    values = ["\U0001f600", "a\x7fb", "\x1b[31m", "\u2028", '"', "\\ud83d"]
    line = yaml_line(values)

    assert line.isascii()
    assert line.isprintable()
    assert values == yaml.safe_load(line)


def test_an_explanation_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in an answer, what is printed is plain text."""
    decision = messages.Decision(decision="deny", reason=STEERING, message=STEERING, status=429, models=STEERING)
    standing = messages.ExplainResponse.ScopeStanding(scope=STEERING, window=STEERING, limited=True, refuses=True)
    show(
        messages.ExplainResponse(
            route_class=STEERING,
            endpoint=STEERING,
            principal=STEERING,
            model=STEERING,
            model_entry=STEERING,
            scopes=[standing],
            decision=decision,
        )
    )

    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_documents_have_every_field() -> None:
    """Fields that are not set are null where protobuf can tell, numbers are numbers, and the parser reads it back."""
    audit = messages.AuditResponse(entries_read=2**53, drifts=[messages.AuditResponse.Drift(of="spent")])
    budget = messages.Budget(scope="global")
    budget.resets_at.FromSeconds(int(NOW_S))

    assert 2**53 == document(audit)["entries_read"]
    drift = {"of": "spent", "counter": "", "expected_usd": 0.0, "found_usd": 0.0, "measure": ""}
    drift |= {"expected": 0, "found": 0}
    assert [drift] == document(audit)["drifts"]
    assert (None, "2026-11-18T11:06:40Z") == (document(budget)["soft_limit_usd"], document(budget)["resets_at"])
    for message in (audit, budget):
        assert message == Parse(json.dumps(document(message)), type(message)())


def a_status(count: int, *, started_s: float = NOW_S - 60, rows: int = 1) -> messages.GetStatusResponse:
    """Make the status of a server that has let `count` requests through, with so many rows in each part."""
    status = messages.GetStatusResponse(version="0.1.0", config_digest="ab" * 32, reservations_open=3, held_usd=0.5)
    status.started_at.FromMilliseconds(int(started_s * 1000))
    status.store.url, status.store.up = "redis://127.0.0.1:6379/0", True
    for row in range(rows):
        status.decisions.add(route_class="inference", decision="allow", reason=f"reason_{row}", count=count)
        budget = status.budgets.add(scope=f"team:{'t' * 60}{row}", window="30d", limit_usd=10 * row, spent_usd=8)
        budget.resets_at.FromSeconds(int(NOW_S + 90_000))
        denied = status.denials.add(method="POST", path="/v1/" + "p" * 200, model=STEERING, principal="key ana")
        denied.decision.MergeFrom(messages.Decision(decision="deny", reason="budget_exceeded", status=429, scope="a"))
    return status


class TestLoad:
    """Rates are differences between two looks."""

    def test_a_second_look(self) -> None:
        """The first look has no rates; the second has those since the first."""
        first = next_load(a_status(100), 10.0, None)
        second = next_load(a_status(150), 12.0, first)

        assert (None, 25.0) == (first.per_second, second.per_second)
        assert {("inference", "allow", "reason_0"): 25.0} == second.rates

    def test_a_restart(self) -> None:
        """A server that counts anew has no rates below 0, and what was seen before stays in the history."""
        before = next_load(a_status(150), 12.0, next_load(a_status(100), 10.0, None))
        anew = next_load(a_status(5, started_s=NOW_S), 14.0, before)

        assert ({}, before.history) == (anew.rates, anew.history)
        assert (25.0, 2.5) == next_load(a_status(10, started_s=NOW_S), 16.0, anew).history

    def test_a_long_watch(self) -> None:
        """The history is bounded."""
        load: Load | None = None
        for look in range(HISTORY_MAX * 2):
            load = next_load(a_status(look), float(look), load)

        assert load is not None
        assert HISTORY_MAX == len(load.history)


class TestFrame:
    """The picture of `extauthz top`."""

    @pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 16), (200, 60)])
    @pytest.mark.parametrize("rows", [0, 1, 100])
    @pytest.mark.parametrize("trouble", ["", "no answer, trying again: " + "x" * 300])
    def test_it_fits(self, width: int, height: int, rows: int, trouble: str) -> None:
        """It is never higher or wider than the terminal, whatever a server has to show."""
        lines = drawn(a_status(10, rows=rows), width, height, trouble=trouble)

        assert height >= len(lines)
        assert width >= max(map(len, lines))
        assert lines[-1].startswith("q ends")

    def test_every_part_has_its_lines(self) -> None:
        """In 80 by 24 no part takes the room of another, and what is left out is counted."""
        lines = drawn(a_status(10, rows=100), 80, 24)
        headings = [line for line in lines if line.startswith(("decisions", "most used", "last refusals"))]

        assert 24 == len(lines)
        assert 3 == len(headings)
        assert ["94 more", "94 more", "95 more"] == [line.split("(")[1].split(")")[0] for line in headings]

    def test_what_is_wrong_is_said(self) -> None:
        """A store that is away, a drain, shadow mode, endings that wait, and a refused configuration stand on top."""
        status = a_status(1)
        status.store.up, status.draining, status.shadow_mode, status.endings_waiting = False, True, True, 7
        status.config_refused = "config.yaml:3: unknown key"
        head = "\n".join(drawn(status, 120, 40)[:5])

        said = ("AWAY", "draining", "shadow mode", "endings waiting 7", "newest configuration refused:  config.yaml:3")
        assert all(word in head for word in said), head

    def test_a_limit_of_nothing(self) -> None:
        """A limit of 0 is drawn like any other."""
        (line,) = (line for line in drawn(a_status(1), 80, 24) if line.startswith("team:"))

        assert "100 %  8.0000 + 0.0000 of 0.0000" in line

    def test_before_the_first_look(self) -> None:
        """Until a server has answered there is no more than its address and what is wrong."""
        console = Console(width=80, height=24)
        with console.capture() as capture:
            console.print(frame(View("here:1", NOW_S, None, None, "no answer", "q ends"), 80, 24))

        assert ["extauthz at here:1", "no answer", "q ends"] == capture.get().splitlines()


def drawn(status: messages.GetStatusResponse, width: int, height: int, *, trouble: str = "") -> list[str]:
    """Draw a server, and give the lines."""
    load = next_load(status, 12.0, next_load(status, 10.0, None))
    console = Console(width=width, height=height, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(frame(View("127.0.0.1:9192", NOW_S, status, load, trouble, "q ends"), width, height))
    return [line.rstrip() for line in capture.get().splitlines()]
