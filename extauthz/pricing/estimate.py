"""What a request will probably use, and the most that it can cost, before anybody knows."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from math import ceil

from extauthz.domain.body import Ask
from extauthz.domain.prices import Estimate, Prices, Usage
from extauthz.domain.routes import Endpoint
from extauthz.pricing.catalog import Reach
from extauthz.pricing.cost import cost, price_or, tokens_of

# Providers wrap messages and tools in text of their own; Anthropic documents up to 530 tokens for a tool prompt.
INPUT_OVERHEAD_TOKENS = 1_000

# What one answer can have when neither the client nor the catalog bounds it: more than any model that is sold writes.
OUTPUT_TOKENS_UNBOUNDED = 131_072

# How many models' answers are remembered, how many answers of each, and how many make a habit.
USUAL_MODELS_MAX = 1_024
USUAL_SAMPLES_MAX = 200
USUAL_SAMPLES_MIN = 20
USUAL_SHARE = 0.95


def estimate(
    ask: Ask,
    reach: Reach,
    *,
    endpoint: Endpoint,
    usual_output_tokens: int,
    usual_reasoning_tokens: int = 0,
    image_tokens: int,
    unseen_bytes: int = 0,
) -> Estimate:
    """Estimate a request: its tokens, their cost, and the cost that it cannot exceed (nano-USD).

    `usual_output_tokens` is what one answer of the model usually has, `usual_reasoning_tokens` what of that is
    reasoning, `image_tokens` what a picture counts as, and `unseen_bytes` what is missing of a truncated body. The
    maximum takes every byte for a token, and the dearest kind of token; it holds as long as pictures count no more than
    `image_tokens`.
    """
    text_bytes = ask.text_bytes + unseen_bytes
    image_input_tokens = ask.images * image_tokens
    readers = max(1, len(ask.models))
    input_tokens = readers * _at_most(tokens_of(text_bytes) + image_input_tokens, reach.context_tokens)
    input_tokens_max = readers * _at_most(text_bytes + image_input_tokens + INPUT_OVERHEAD_TOKENS, reach.context_tokens)
    choices = 0 if endpoint is Endpoint.EMBEDDINGS else ask.choices
    bound = _output_bound(ask, reach)
    output_tokens = choices * _at_most(usual_output_tokens, bound)
    output_tokens_max = choices * (max(OUTPUT_TOKENS_UNBOUNDED, usual_output_tokens) if bound is None else bound)
    return Estimate(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_nanousd=cost(reach.prices, Usage(input_tokens, output_tokens)),
        cost_nanousd_max=cost(_dearest_kind(reach.prices), Usage(input_tokens_max, output_tokens_max)),
        reasoning_output_tokens=min(choices * usual_reasoning_tokens, output_tokens),
    )


def _output_bound(ask: Ask, reach: Reach) -> int | None:
    """Give the most that one answer can have: the client's, the model's or the context's maximum, None for no bound.

    A maximum of 0 is no bound: some upstreams take it for "as much as you like".
    """
    bounds = (ask.output_tokens_max or None, reach.output_tokens_max, reach.context_tokens)
    return min((bound for bound in bounds if bound is not None), default=None)


def _at_most(tokens: int, bound: int | None) -> int:
    return tokens if bound is None else min(tokens, bound)


def _dearest_kind(prices: Prices) -> Prices:
    """Price every input token as the dearest kind of input, and output likewise."""
    return Prices(
        input=max(
            prices.input,
            price_or(prices.cache_read_input, prices.input),
            price_or(prices.cache_creation_input, prices.input),
        ),
        output=max(prices.output, price_or(prices.reasoning_output, prices.output)),
    )


class UsualTokens:
    """What the answers of each model usually need: a p95 of the last ones that this process saw.

    It starts at `output_tokens` and stays there until a model has given USUAL_SAMPLES_MIN answers; with `fixed` it
    stays for good. The models that answered last are kept.
    """

    def __init__(self, output_tokens: int, *, fixed: bool = False) -> None:
        self._start = output_tokens
        self._fixed = fixed
        self._answers: OrderedDict[str, deque[int]] = OrderedDict()
        self._usual: dict[str, int] = {}

    def observe(self, model: str, output_tokens: int) -> None:
        """Take note of one completed answer."""
        if self._fixed:
            return
        answers = self._answers.setdefault(model, deque(maxlen=USUAL_SAMPLES_MAX))
        answers.append(max(output_tokens, 0))
        self._answers.move_to_end(model)
        if len(answers) >= USUAL_SAMPLES_MIN:
            self._usual[model] = sorted(answers)[ceil(USUAL_SHARE * len(answers)) - 1]
        if len(self._answers) > USUAL_MODELS_MAX:
            forgotten, _ = self._answers.popitem(last=False)
            self._usual.pop(forgotten, None)

    def of(self, model: str) -> int:
        """Tell how many output tokens an answer of a model usually has at most."""
        return self._usual.get(model, self._start)


@dataclass(frozen=True, slots=True)
class UsualAnswer:
    """What answers usually need, in all and for reasoning."""

    output: UsualTokens
    reasoning: UsualTokens

    def observe(self, model: str, usage: Usage, choices: int) -> None:
        """Take note of a completed answer with that many choices."""
        self.output.observe(model, ceil(usage.output_tokens / choices))
        self.reasoning.observe(model, ceil(usage.reasoning_output_tokens / choices))
