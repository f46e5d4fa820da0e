"""What a request will probably use, and the most that it can cost, before anybody knows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from math import ceil

from extauthz.domain.ask import Ask
from extauthz.domain.endpoints import Charge, Endpoint, row_of
from extauthz.domain.prices import Estimate, Usage
from extauthz.domain.value import value
from extauthz.pricing.catalog import Reach
from extauthz.pricing.cost import at_tier, cost, dearest_kind, tokens_of

# Providers wrap messages and tools in text of their own; Anthropic documents up to 530 tokens for a tool prompt.
INPUT_OVERHEAD_TOKENS = 1_000

# What one answer can have when neither the client nor the catalog bounds it: more than any model that is sold writes.
OUTPUT_TOKENS_UNBOUNDED = 131_072

# A second of sound that is heard counts so much (Gemini; OpenAI a third of it).
HEARD_TOKENS_PER_SECOND = 32

# How many models' answers are remembered, how many answers of each, and how many make a habit.
USUAL_MODELS_MAX = 1_024
USUAL_SAMPLES_MAX = 200
USUAL_SAMPLES_MIN = 20
USUAL_SHARE = 0.95

_NO_OUTPUT = frozenset({Endpoint.EMBEDDINGS, Endpoint.RERANK, Endpoint.MODERATIONS, Endpoint.VIDEOS})
# Their input goes through the model in one piece, so it is never longer than the model's context.
_ONE_INPUT = frozenset(
    {Endpoint.CHAT_COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.GENERATE_CONTENT, Endpoint.COMPLETIONS}
)


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is taken for the length of an answer that is no text, and of a sound, which nobody decodes here."""

    picture_tokens: int
    sound_bytes_per_second: int
    written_tokens_per_second: int
    spoken_tokens_per_character: int


# A picture of middling quality; speech at 32 kbit/s, four tokens of it written down in a second; 15 letters a second
# read aloud, in about 25 tokens.
_USUAL = _Measure(1_100, 4_000, 4, 2)
# gpt-image's best picture; speech at 6 kbit/s, the least that it takes; six letters a second.
_MOST = _Measure(6_240, 750, 10, 4)


def estimate(
    ask: Ask,
    reach: Reach,
    *,
    endpoint: Endpoint,
    usual_output_tokens: int,
    usual_reasoning_tokens: int = 0,
    image_tokens: int,
    unseen_bytes: int = 0,
    flat_nanousd: int = 0,
) -> Estimate:
    """Estimate a request: its tokens and units, their cost, and the cost that it cannot exceed (nano-USD).

    `usual_output_tokens` is what one answer of the model usually has, `usual_reasoning_tokens` what of that is
    reasoning, `image_tokens` what a picture counts as, and `unseen_bytes` what is missing of a truncated body. The
    maximum takes every byte for a token, and the dearest kind of token; it holds as long as pictures count no more than
    `image_tokens`. What nobody can estimate costs at least `flat_nanousd`.
    """
    flat = flat_nanousd if _is_flat(ask, endpoint) else 0
    if flat and not ask.models:
        return Estimate(0, 0, flat, flat, flat_nanousd=flat)
    if ask.file_bytes:
        # What is missing of a form that has begun with its file is the file's.
        ask, unseen_bytes = replace(ask, file_bytes=ask.file_bytes + unseen_bytes), 0
    given = _Given(ask, reach, endpoint, usual_output_tokens, image_tokens, unseen_bytes)
    expected, most = given.expected(), given.most()
    tier = ask.service_tier
    # A tier that is asked for is not always given.
    dearest = cost(reach.prices_max, most)
    if tier is not None:
        dearest = max(dearest, cost(dearest_kind(reach.prices, tier), most))
    cost_nanousd = max(flat, cost(at_tier(reach.prices, tier), expected))
    return Estimate(
        input_tokens=expected.input_tokens,
        output_tokens=expected.output_tokens,
        cost_nanousd=cost_nanousd,
        cost_nanousd_max=max(dearest, cost_nanousd),
        reasoning_output_tokens=min(given.choices * usual_reasoning_tokens, expected.output_tokens),
        units=expected.units,
        flat_nanousd=flat,
        tokens_max=max(most.tokens, expected.tokens),
    )


def _is_flat(ask: Ask, endpoint: Endpoint) -> bool:
    """Tell whether nothing of a request says what it costs; an opaque call that runs its model counts as a chat."""
    chat = endpoint is Endpoint.OPAQUE and ask.models and not ask.guessed
    return row_of(endpoint).charge is Charge.FLAT and not chat


@value
class _Given:
    """A request, and what is known of its answer before there is one."""

    ask: Ask
    reach: Reach
    endpoint: Endpoint
    usual_output_tokens: int
    image_tokens: int
    unseen_bytes: int

    @property
    def choices(self) -> int:
        """How many answers there will be that are text."""
        return 0 if self.endpoint in _NO_OUTPUT else self.ask.choices

    def expected(self) -> Usage:
        """Tell what such requests use."""
        text_tokens = tokens_of(self.ask.text_bytes + self.unseen_bytes)
        return self._used(
            self._read(text_tokens),
            self.choices * _at_most(self.usual_output_tokens, self._output_bound()),
            _USUAL,
        )

    def most(self) -> Usage:
        """Tell what it can use at most."""
        text_tokens = self.ask.text_bytes + self.unseen_bytes + INPUT_OVERHEAD_TOKENS
        if self.ask.recalls or self.endpoint is Endpoint.REALTIME:
            text_tokens += OUTPUT_TOKENS_UNBOUNDED
        bound = self._output_bound()
        output = max(OUTPUT_TOKENS_UNBOUNDED, self.usual_output_tokens) if bound is None else bound
        return self._used(
            self._read(text_tokens),
            self.choices * output,
            _MOST,
        )

    def _read(self, text_tokens: int) -> Usage:
        """Tell what every model that is asked reads, where that is text and pictures."""
        readers, context = max(1, len(self.ask.models)), self.reach.context_tokens
        if self.endpoint not in _ONE_INPUT:
            context = None
        elif self.endpoint is Endpoint.COMPLETIONS and context is not None:
            context *= self.ask.choices
        pictures = self.ask.images * self.image_tokens
        tokens = readers * _at_most(text_tokens + pictures, context)
        return Usage(tokens, 0, image_input_tokens=min(readers * pictures, tokens))

    def _used(self, read: Usage, output_tokens: int, measure: _Measure) -> Usage:
        """Add to what is read what is heard, made and said; for a text that is `output_tokens`."""
        units = self.ask.units
        match self.endpoint:
            case Endpoint.TRANSCRIPTIONS | Endpoint.TRANSLATIONS:
                milliseconds = -(-self.ask.file_bytes * 1000 // measure.sound_bytes_per_second)
                seconds = -(-milliseconds // 1000)
                heard = seconds * HEARD_TOKENS_PER_SECOND
                return replace(
                    read,
                    input_tokens=read.input_tokens + heard,
                    audio_input_tokens=heard,
                    output_tokens=seconds * measure.written_tokens_per_second,
                    units=replace(units, milliseconds=milliseconds),
                )
            case Endpoint.IMAGE_GENERATIONS | Endpoint.IMAGE_EDITS | Endpoint.IMAGE_VARIATIONS:
                drawn = units.images * measure.picture_tokens
                return replace(read, output_tokens=drawn, image_output_tokens=drawn, units=units)
            case Endpoint.SPEECH:
                units = replace(units, characters=units.characters + self.unseen_bytes)
                spoken = units.characters * measure.spoken_tokens_per_character
                return replace(read, output_tokens=spoken, audio_output_tokens=spoken, units=units)
            case Endpoint.REALTIME:
                tokens = max(read.input_tokens, INPUT_OVERHEAD_TOKENS)
                return Usage(
                    tokens, output_tokens, audio_input_tokens=tokens, audio_output_tokens=output_tokens, units=units
                )
            case _:
                return Usage(read.input_tokens, output_tokens, image_input_tokens=read.image_input_tokens, units=units)

    def _output_bound(self) -> int | None:
        """Give the most that one answer can have: the client's, the model's or the context's, None for no bound.

        A maximum of 0 is no bound: some upstreams take it for "as much as you like".
        """
        bounds = (self.ask.output_tokens_max or None, self.reach.output_tokens_max, self.reach.context_tokens)
        return min((bound for bound in bounds if bound is not None), default=None)


def _at_most(tokens: int, bound: int | None) -> int:
    return tokens if bound is None else min(tokens, bound)


class _Samples:
    """The last USUAL_SAMPLES_MAX lengths of answers, in the order in which they came and by their size."""

    def __init__(self) -> None:
        self._came: deque[int] = deque()
        self._by_size: list[int] = []

    def add(self, tokens: int) -> None:
        """Take note of one more, instead of the oldest."""
        if len(self._came) == USUAL_SAMPLES_MAX:
            del self._by_size[bisect_left(self._by_size, self._came.popleft())]
        self._came.append(tokens)
        insort(self._by_size, tokens)

    @property
    def usual(self) -> int | None:
        """What most of them have at most; None while there are too few to tell."""
        count = len(self._by_size)
        return self._by_size[ceil(USUAL_SHARE * count) - 1] if count >= USUAL_SAMPLES_MIN else None


class UsualTokens:
    """What the answers of each model usually need: a p95 of the last ones that this process saw.

    It starts at `output_tokens` and stays there until a model has given USUAL_SAMPLES_MIN answers; with `fixed` it
    stays for good. The models that answered last are kept.
    """

    def __init__(self, output_tokens: int, *, fixed: bool = False) -> None:
        self._start = output_tokens
        self._fixed = fixed
        self._answers: OrderedDict[str, _Samples] = OrderedDict()

    def observe(self, model: str, output_tokens: int) -> None:
        """Take note of one completed answer."""
        if self._fixed:
            return
        if model not in self._answers:
            self._answers[model] = _Samples()
        self._answers[model].add(max(output_tokens, 0))
        self._answers.move_to_end(model)
        if len(self._answers) > USUAL_MODELS_MAX:
            self._answers.popitem(last=False)

    def of(self, model: str) -> int:
        """Tell how many output tokens an answer of a model usually has at most."""
        answers = self._answers.get(model)
        usual = None if answers is None else answers.usual
        return self._start if usual is None else usual


@dataclass(frozen=True, slots=True)
class UsualAnswer:
    """What answers usually need, in all and for reasoning."""

    output: UsualTokens
    reasoning: UsualTokens

    def observe(self, model: str, usage: Usage, choices: int) -> None:
        """Take note of a completed answer with that many choices."""
        self.output.observe(model, ceil(usage.output_tokens / choices))
        self.reasoning.observe(model, ceil(usage.reasoning_output_tokens / choices))
