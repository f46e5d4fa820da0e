"""Many requests at once that end in every way there is, and what must be booked for each by what was seen of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import sha256

from extauthz.demo import answers
from extauthz.demo.answers import Answer, Api
from extauthz.domain.prices import Usage
from extauthz.envoy.bootstrap import BootstrapOptions, Document
from tests.support import raw
from tests.support.abort import Call, calling
from tests.support.processes import eventually
from tests.support.stack import Metrics, Stack
from tests.support.upstream import EVENT_STREAM, PLAY_HEADER, Cue, Head, Play, Received

SEED = 4
IN_FLIGHT = 50
HTTP_ERROR = 400
# Far below the lease of 120 s: whatever is ended within it was ended by a signal.
SECONDS_TO_SETTLE = 5.0

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, input_cost_per_token: 0.000001, output_cost_per_token: 0.000004}
general_settings: {user_header_name: x-end-user}
extauthz:
  lease_seconds: 120
  estimate: {mode: fixed, output_tokens: 64}
  global: {max_budget: 1000}
  organizations: {acme: {max_budget: 1000, budget_duration: 1mo}}
  teams:
    red: {organization: acme, max_budget: 1000, members: {ana: {max_budget: 1000, budget_duration: 1mo}}}
    blue: {max_budget: 1000}
    grey: {max_budget: 1000}
  users: {ana: {max_budget: 1000}}
  keys:
    - {key: sk-ana, user: ana, team: red, max_budget: 1000}
    - {key: sk-bob, team: blue, max_budget: 1000}
    - {key: sk-guess, team: grey, max_budget: 1000}
  end_users: {eve: {max_budget: 1000}}
"""
INPUT_NANOUSD, OUTPUT_NANOUSD = 1_000, 4_000

# "model", "stream" and "messages" do not count; the model (6), true or false (3), role, user and content (15) do.
TEXT = "x" * (300 - 6 - 3 - 15)
INPUT_TOKENS = 100
INPUT_ONLY = INPUT_TOKENS * INPUT_NANOUSD
RESERVED = INPUT_ONLY + 64 * OUTPUT_NANOUSD


def key_scope(key: str) -> str:
    """Name the scope of a key as the metrics do."""
    return f"key:{sha256(key.encode()).hexdigest()}"


# Who pays, and every scope that must then show it. sk-guess pays for what the test can only know within bounds.
PAYERS = {
    "sk-ana": ("global", "org:acme", "team:red", "member:red/ana", "user:ana", key_scope("sk-ana"), "end_user:eve"),
    "sk-bob": ("global", "team:blue", key_scope("sk-bob")),
    "sk-guess": ("global", "team:grey", key_scope("sk-guess")),
}


class Leave(Enum):
    """When the client hangs up."""

    AT_THE_END = auto()
    CHECK_PENDING = auto()  # the server stands still and cannot have answered
    UPSTREAM_AT_WORK = auto()  # the upstream has the request and no header came
    MID_ANSWER = auto()  # all that the upstream sent so far is here
    RUNNING = auto()  # the upstream goes on sending


@dataclass(frozen=True, slots=True)
class Way:
    """A way for a request to end: what the upstream plays, when the client leaves, and how often in the mix.

    `streams` and `plains` count requests. `times_out` gives the request a route with a timeout of Envoy's.
    """

    name: str
    play: str
    leave: Leave = Leave.AT_THE_END
    streams: int = 0
    plains: int = 0
    times_out: bool = False
    payer: str | None = None

    def __str__(self) -> str:
        return self.name


ANSWERED = Way("answered", "answers", streams=600, plains=400)
UPSTREAM_500 = Way("upstream 500", "fails", streams=60, plains=60)
RESET = Way("reset before headers", "resets", streams=60, plains=60)
BROKEN = Way("reset mid-stream", "breaks", streams=100, payer="sk-guess")
BROKEN_PLAIN = Way("reset mid-answer", "breaks", plains=60)
ABORTED_EARLY = Way("client abort before headers", "hangs", Leave.UPSTREAM_AT_WORK, streams=60, plains=60)
ABORTED = Way("client abort mid-stream", "stalls", Leave.MID_ANSWER, streams=120, plains=60)
ABORTED_RUNNING = Way("client abort of a running stream", "answers", Leave.RUNNING, streams=40, payer="sk-guess")
CANCELLED = Way("Check cancelled", "answers", Leave.CHECK_PENDING, streams=40, plains=40)
TIMEOUT = Way("timeout before headers", "hangs", streams=40, plains=40, times_out=True)
TIMEOUT_LATE = Way("timeout mid-stream", "stalls", streams=40, plains=20, times_out=True)
LOST = Way("Check timed out", "answers", plains=40)

FAILURES = (
    *(UPSTREAM_500, RESET, BROKEN, BROKEN_PLAIN, ABORTED_EARLY, ABORTED, ABORTED_RUNNING),
    *(CANCELLED, TIMEOUT, TIMEOUT_LATE),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One request of the mix."""

    number: int
    way: Way
    streamed: bool
    payer: str

    @property
    def body(self) -> bytes:
        """What it sends. Of the streams that are answered, each second asks for usage itself."""
        document: dict[str, object] = {
            "model": "gpt-4o",
            "stream": self.streamed,
            "messages": [{"role": "user", "content": TEXT}],
        }
        if self.streamed and self.way is ANSWERED and self.number % 2:
            document["stream_options"] = {"include_usage": True}
        return json.dumps(document).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Its headers: who pays, what the upstream plays, and the number by which the upstream's books name it."""
        headers = {"authorization": f"Bearer {self.payer}", PLAY_HEADER: self.way.play, "x-call": str(self.number)}
        if self.payer == "sk-ana":
            headers["x-end-user"] = "eve"
        if self.way.times_out:
            headers["x-timeout"] = "short"
        return headers


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client saw of one request."""

    job: Job
    status: int
    received: bytes
    whole: bool


def usage_of(number: int) -> Usage:
    """Tell what the upstream uses for a request: its own count of the input, which is never the estimate."""
    return Usage(input_tokens=80 + number % 7, output_tokens=10 + number % 50)


def pieces_of(request: Received) -> list[bytes]:
    """Give the upstream's whole answer to a request, in the pieces that it goes out in."""
    answer = Answer(Api.CHAT, "scripted", "gpt-4o", usage_of(number_of(request)), "stop")
    if request.asked["stream"]:
        return [piece.data for piece in answers.pieces(answer, include_usage=request.include_usage)]
    data = answers.to_bytes(answers.whole(answer))
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def half_of(number: int, *, streamed: bool) -> list[bytes]:
    """Give the half of an answer that goes out where the upstream stops in the middle."""
    body = json.dumps({"stream": streamed, "stream_options": {"include_usage": True}}).encode()
    pieces = pieces_of(Received("POST", "/", (("x-call", str(number)),), body))
    return pieces[: len(pieces) // 2]


def number_of(request: Received) -> int:
    """Tell which request of the mix this is."""
    return int(request.header("x-call") or "0")


def plays(cut: Cue | None = None) -> Callable[[Received], Play]:
    """Answer all, or half and then the cue."""

    def play(request: Received) -> Play:
        pieces = pieces_of(request)
        usage = usage_of(number_of(request))
        streamed = bool(request.asked["stream"])
        head = Head(content_type=EVENT_STREAM) if streamed else Head(content_length=sum(map(len, pieces)))
        return Play((head, *pieces) if cut is None else (head, *pieces[: len(pieces) // 2], cut), usage)

    return play


def tokens_delivered(stream: bytes) -> int:
    """Count the output of the events that came whole as `on_abort: delivered` does: events, or text / 3 if more."""
    events = [
        json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\n\n")[:-1] if b"[DONE]" not in event
    ]
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    return max(len(events), -(-len(text.encode()) // 3))


def cost(usage: Usage) -> int:
    """Tell what a usage costs, in nano-USD."""
    return usage.input_tokens * INPUT_NANOUSD + usage.output_tokens * OUTPUT_NANOUSD


def delivered(stream: bytes) -> int:
    """Tell what a stream costs that broke off after these bytes, in nano-USD."""
    return INPUT_ONLY + tokens_delivered(stream) * OUTPUT_NANOUSD


def booked(seen: Seen, finished: dict[int, Usage]) -> tuple[int, int]:
    """Tell what must be booked for a request: the least and the most, which nearly always are the same.

    `finished` are the upstream's own books of whole answers.
    """
    job, way = seen.job, seen.job.way
    if way in (UPSTREAM_500, RESET, CANCELLED, LOST):
        return 0, 0
    if way is ANSWERED:
        truth = cost(finished[job.number])
        return truth, truth
    if not job.streamed:
        return RESERVED, RESERVED  # on_abort_unary: providers bill an answer that nobody waited for
    if way in (ABORTED_EARLY, TIMEOUT) or seen.status == 504:
        return INPUT_ONLY, INPUT_ONLY
    if way in (ABORTED, TIMEOUT_LATE):
        exact = delivered(seen.received)
        return exact, exact
    if way is BROKEN:
        # A reset may overtake bytes on each of the two connections: the meter has seen what the client got, and
        # perhaps more, up to all that the upstream sent.
        return delivered(seen.received), delivered(b"".join(half_of(job.number, streamed=True)))
    # The stream ran on while the client left. The meter has seen what the client got, and perhaps more: up to the
    # finish without usage, which is worth the estimate or the whole text.
    whole = b"".join(pieces_of(Received("POST", "/", (("x-call", str(job.number)),), b'{"stream":true}')))
    least = min(delivered(seen.received), cost(usage_of(job.number)))
    return least, max(RESERVED, delivered(whole))


def the_mix() -> list[Job]:
    """Give the requests of the mix, at random but each time the same."""
    chance = random.Random(SEED)
    kinds = [
        (way, streamed)
        for way in (ANSWERED, *FAILURES)
        for streamed, count in ((True, way.streams), (False, way.plains))
        for _ in range(count)
    ]
    chance.shuffle(kinds)
    return [
        Job(number, way, streamed, way.payer or chance.choice(("sk-ana", "sk-bob")))
        for number, (way, streamed) in enumerate(kinds)
    ]


class Storm:
    """Sends requests, many at once, and keeps what the clients saw."""

    def __init__(self, running: Stack) -> None:
        self.stack = running
        self.port = running.envoy.options.listen.port
        self.seen: list[Seen] = []
        self._arrived: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._pause = asyncio.Lock()
        for name, cut in (("answers", None), ("breaks", Cue.RESET), ("stalls", Cue.HANG)):
            running.upstream.plays[name] = self._noting(plays(cut))
        running.upstream.plays["hangs"] = self._noting(running.upstream.plays["hangs"])

    def arrived(self, number: int) -> bool:
        """Tell whether the upstream got a request."""
        return self._arrived[number].is_set()

    async def run(self, jobs: list[Job]) -> None:
        """Send them all, IN_FLIGHT at a time."""
        queue = iter(jobs)

        async def work() -> None:
            for job in queue:
                await self.send(job)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    async def send(self, job: Job) -> None:
        """Send one request, hang up when its way says so, and note what was seen."""
        if job.way.leave is Leave.CHECK_PENDING:
            await self._cancel(job)
            return
        async with calling(self.port, job.body, job.headers) as call:
            match job.way.leave:
                case Leave.AT_THE_END:
                    await call.end()
                case Leave.UPSTREAM_AT_WORK:
                    await first_of(self._arrived[job.number].wait(), call.head())
                case Leave.MID_ANSWER:
                    half = len(b"".join(half_of(job.number, streamed=job.streamed)))
                    await call.until(lambda call: len(call.received) >= half)
                case Leave.RUNNING:
                    await call.until(lambda call: call.events >= 2)
            self.note(job, call)

    async def _cancel(self, job: Job) -> None:
        """Leave while the Check is pending: the server stands still until Envoy knows that the client is gone."""
        async with self._pause:
            async with self.stack.gate.process.paused():
                async with calling(self.port, job.body, job.headers) as call:
                    await self._through_envoy()
                self.note(job, call)
                await self._through_envoy()
            await self.stack.gate.page("/healthz")  # the others' Checks get a turn before the next pause

    async def _through_envoy(self) -> None:
        """Wait until Envoy has seen all that was sent to it: it answers nonsense itself, in its only worker thread."""
        await raw.send(self.port, b"nonsense\r\n\r\n")

    async def answers(self) -> bool:
        """Tell whether a request that costs nothing passes through Envoy, and so whether Checks are answered."""
        (reply,) = await raw.send(self.port, b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n")
        return reply.status < HTTP_ERROR

    def note(self, job: Job, call: Call) -> None:
        """Note what the client saw."""
        self.seen.append(Seen(job, call.status, call.received, call.whole))

    def _noting(self, play: Callable[[Received], Play]) -> Callable[[Received], Play]:
        def noting(request: Received) -> Play:
            self._arrived[number_of(request)].set()
            return play(request)

        return noting


async def first_of(*waits: Coroutine[object, object, object]) -> None:
    """Wait for whatever comes first, and for nothing else."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def with_short_timeouts(document: Document) -> Document:
    """Add a route for requests that say `x-timeout`; Envoy gives up on their answers after a second."""

    def hosts(node: object) -> Iterator[dict[str, list[dict[str, object]]]]:
        if isinstance(node, dict):
            yield from node.get("virtual_hosts", ())
            for child in node.values():
                yield from hosts(child)
        elif isinstance(node, list):
            for child in node:
                yield from hosts(child)

    (host,) = hosts(document)
    route = {"cluster": "upstream", "timeout": "1s"}
    match = {"prefix": "/", "headers": [{"name": "x-timeout", "present_match": True}]}
    host["routes"].insert(0, {"match": match, "route": route})
    return document


def patient(options: BootstrapOptions) -> BootstrapOptions:
    """Let a Check take 3 s: only where the server stands still on purpose may one time out."""
    return replace(options, check_timeout_s=3.0)


async def settled(running: Stack) -> Metrics:
    """Wait until no reservation is open, for much less than a lease, and give the metrics then."""

    async def read() -> Metrics | None:
        metrics = await running.gate.metrics()
        return metrics if metrics.open == 0 else None

    metrics = await eventually(read, SECONDS_TO_SETTLE, "no reservation is open")
    assert metrics is not None
    return metrics


def by_scope(amounts: dict[tuple[str, ...], int]) -> dict[str, int]:
    """Leave the windows out; each scope has one here."""
    return {scope: amount for (scope, _), amount in amounts.items()}


def as_planned(seen: Seen, storm: Storm) -> bool:
    """Tell whether a request went the way that it was to go, so that the mix is what it says."""
    way, status, whole = seen.job.way, seen.status, seen.whole
    if way is CANCELLED:
        return status == 0 and not storm.arrived(seen.job.number)
    if way is LOST:
        return status == 503 and not storm.arrived(seen.job.number)
    if way is ANSWERED:
        return (status, whole) == (200, True)
    if way in (UPSTREAM_500, RESET, TIMEOUT):
        return status == {UPSTREAM_500: 500, RESET: 503, TIMEOUT: 504}[way]
    if way is ABORTED_EARLY:
        return status == 0
    if way is ABORTED_RUNNING:
        return status == 200
    if way is TIMEOUT_LATE and status == 504:
        return True  # a slow machine may bring the first byte too late
    return status == 200 and not whole
