"""Whole decisions about requests that nobody would send: who has no money gets nothing that costs any.

What a request is, is judged here as a careless upstream would: it decodes a path as often as it can, follows dots,
takes any case, and obeys whichever model stands anywhere.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.authorizer import Authorizer, Call
from extauthz.config.load import load
from extauthz.config.snapshot import Snapshot
from extauthz.domain.request import RequestFacts
from extauthz.domain.verdict import Admit, AnswerModels, Decision, Defer, Deny, ModelsView, Pass, Reason
from extauthz.ledger.memory import MemoryLedger
from extauthz.pricing.estimate import UsualAnswer, UsualTokens
from tests.support.apis import paths
from tests.support.apis.asking import BOUNDARY
from tests.support.ledger import SIGNING_KEY

PAID, FREE, PATTERN = "omni", "local-llama", "open/anything"
CONFIG = """
model_list:
  - model_name: omni
    litellm_params: {model: custom/omni, input_cost_per_token: 0.000001, output_cost_per_token: 0.00001}
  - model_name: local-llama
    litellm_params: {model: custom/llama, input_cost_per_token: 0, output_cost_per_token: 0}
  - model_name: open/*
    litellm_params: {model: custom/*, input_cost_per_token: 0, output_cost_per_token: 0}
general_settings: {budget_exceeded_models_policy: free_only}
extauthz:
  api_prefixes: [/team/llm]
  teams: {broke: {max_budget: 0}}
  keys: [{key: sk-broke, team: broke}]
"""

# What runs a model and is paid for, wherever an upstream serves it.
BILLED = re.compile(
    r"(?:/team/llm)?(?:/openai)?(?:/v1|/v1beta|/v2)?/(?:(?:engines|deployments)/.+/)?"
    r"(?:chat/completions|completions|embeddings|responses|messages|moderations|rerank|videos|ocr|search|batches|realtime"
    r"|images/(?:generations|edits|variations)|audio/(?:speech|transcriptions|translations)"
    r"|models/.+:(?:generatecontent|streamgeneratecontent|embedcontent|batchembedcontents))/?"
)
DECODINGS = 3
# Many kinds of requests meet many kinds of paths here.
EXAMPLES = 500

Mutation = Callable[[str], str]
MUTATIONS: tuple[Mutation, ...] = (
    lambda path: path.upper(),
    lambda path: path.replace("/", "//", 1),
    lambda path: path.replace("/", "/./", 1),
    lambda path: path.replace("/", "/models/../", 1),
    lambda path: path.replace("/", "/health/%2e%2e/", 1),
    lambda path: path.replace("/", "%2F"),
    lambda path: path.replace("o", "%6f"),
    lambda path: path.replace("o", "%256F"),
    lambda path: path.replace("e", "\uff45"),
    lambda path: path + "/",
    lambda path: path + ";x=/models",
    lambda path: path + "?model=local-llama",
    lambda path: path + "?model=omni",
    lambda path: path + "#/models",
    lambda path: path + "%00",
    lambda path: "/v1/models/" + path,
    lambda path: "\\" + path,
)


def changed(path: str, changes: Sequence[Mutation]) -> str:
    """Apply changes to a path, one after the other."""
    for change in changes:
        path = change(path)
    return path


written = [call.asking.path.replace(call.model or PAID, PAID) for row in paths.ROWS for call in paths.calls(row)]
of_model = [path for path in written if PAID in path]
read_only = ["/v1/models", "/v1/models/omni", "/v1/models/local-llama", "/model/info", "/api/tags", "/health", "/"]
mutated = st.builds(
    changed,
    st.sampled_from(written + read_only) | st.sampled_from(of_model),
    st.lists(st.sampled_from(MUTATIONS), max_size=3),
)
methods = st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "PATCH", ""])
names = st.sampled_from([PAID, FREE, FREE, PATTERN, f"{FREE},{PAID}", f" {FREE}", f"{FREE}\u0000", ""])
models = names | st.sampled_from([[FREE, PAID], None, 5, {"a": PAID}, [[PAID]]])
keys = st.sampled_from(["model", "Model", "mod\u0065l", "fallbacks", "extra_body", "requests"])
naming = st.tuples(keys, models | st.lists(st.dictionaries(keys, models, max_size=2), max_size=2))
saying = st.tuples(
    st.sampled_from(["messages", "input", "prompt", "n", "stream"]), st.sampled_from(["Hi", 2, True, []])
)
members = st.lists(naming | saying, max_size=4)
objects = members.map(
    lambda pairs: ("{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}").encode()
)
forms = st.lists(st.tuples(keys, names), max_size=3).map(
    lambda pairs: (
        b"".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in pairs
        )
        + f"--{BOUNDARY}--\r\n".encode()
    )
)
bodies = objects | forms | st.binary(max_size=20) | names.map(lambda name: json.dumps({"model": name}).encode())
types = st.just("application/json") | st.sampled_from(
    [
        "application/json",
        f"multipart/form-data; boundary={BOUNDARY}",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=utf-16",
    ]
)
extras = st.dictionaries(
    st.sampled_from(["x-litellm-model", "x-http-method-override", "upgrade", "anthropic-version", "content-encoding"]),
    st.sampled_from([(PAID,), (FREE,), ("GET",), ("POST",), ("websocket",), (FREE, PAID), ("",)]),
    max_size=2,
)


class Broke:
    """The gate for somebody whose budget is exhausted."""

    def __init__(self, snapshot: Snapshot, runner: asyncio.Runner) -> None:
        self._snapshot = snapshot
        self._runner = runner
        ledger = MemoryLedger(lambda: 1_700_000_000_000, SIGNING_KEY)
        self._authorizer = Authorizer(ledger, UsualAnswer(UsualTokens(100), UsualTokens(0)))

    def decide(self, facts: RequestFacts) -> Decision:
        """Decide about a request."""
        call = Call("reservation", "attempt", 1.0)
        return self._runner.run(self._authorizer.decide(facts, call, self._snapshot))


@pytest.fixture(scope="module")
def broke() -> Iterator[Broke]:
    """Give that gate."""
    with TemporaryDirectory() as folder, asyncio.Runner() as runner:
        file = Path(folder) / "config.yaml"
        file.write_text(CONFIG)
        yield Broke(load(file, {}), runner)


def readings(path: str) -> set[str]:
    """Give every path that an upstream might read."""
    found, text = set(), path
    for _ in range(DECODINGS):
        bare = re.split(r"[?#]", text)[0]
        for reading in (bare, re.sub(r";[^/]*", "", bare), bare.replace("\\", "/"), text):
            found |= {reading, posixpath.normpath(re.sub("/+", "/", "/" + reading))}
        text = unquote(text)
    return found


def is_billed(facts: RequestFacts) -> bool:
    """Tell whether any upstream might take a request for a call that it is paid for."""
    override = facts.header("x-http-method-override")
    posted = "POST" in (facts.method.upper(), override)
    return posted and any(BILLED.fullmatch(reading.casefold()) for reading in readings(facts.path))


def names_paid(facts: RequestFacts) -> bool:
    """Tell whether a model that costs something is named anywhere at all."""
    everywhere = [facts.path, *readings(facts.path), *facts.headers.get("x-litellm-model", ())]
    return PAID.encode() in facts.body or any(PAID in text for text in everywhere)


@settings(max_examples=EXAMPLES)
@given(methods, mutated, bodies, types, extras, st.sampled_from([0, 0, 0, 100]))
def test_nothing_paid_passes_without_money(
    broke: Broke,
    method: str,
    path: str,
    body: bytes,
    content_type: str,
    extra: dict[str, tuple[str, ...]],
    unseen_bytes: int,
) -> None:
    """Whatever is sent: what passes is a model that is free and the only one named, or no call of a model at all."""
    headers = {"authorization": ("Bearer sk-broke",), "content-type": (content_type,), **extra}
    facts = RequestFacts(method, path, headers, body, unseen_bytes, {"extauthz.prune": "on"})

    verdict = broke.decide(facts).verdict

    match verdict:
        case Pass(reason=Reason.FREE_MODEL):
            assert not names_paid(facts)
        case Pass(models=ModelsView.FREE_ONLY) | AnswerModels():
            assert method in ("GET", "HEAD")
        case Pass():
            assert not is_billed(facts), verdict
        case Admit() | Defer():
            raise AssertionError(verdict)
        case Deny():
            assert verdict.status < 500
