"""The attacks: requests to the byte, each with the end that it must have."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

from tests.support.raw import chunked

LIMIT = 64 * 1024
# What the upstream reports unless told otherwise: 10 tokens in, 20 out, at the prices of gpt-4o, in nano-USD.
COST_NANOUSD = 10 * 2_500 + 20 * 10_000
MEBIBYTE = 1024 * 1024

KEY = "authorization: Bearer {key}"
JSON = "content-type: application/json"
MESSAGES = '"messages":[{"role":"user","content":"hi"}]'
PAID_BODY = b'{"model":"gpt-4o",%s}' % MESSAGES.encode()
FREE_BODY = b'{"model":"local-llama",%s}' % MESSAGES.encode()
CHAT = "POST /v1/chat/completions"


class End(Enum):
    """How an attack ends."""

    REFUSED = "refused"  # 4xx for everybody
    PAID = "paid"  # 429 without money; with money held and settled
    LISTED = "listed"  # it is model discovery after all: no paid model is seen without money, and nothing is called


class Framing(Enum):
    """How the end of the body is told."""

    LENGTH = "length"
    CHUNKED = "chunked"
    NONE = "none"  # not at all: the body, if any, follows the head as it is


@dataclass(frozen=True, slots=True)
class Attack:
    """A request to the byte, and its end. `{key}` in a header stands for the key of whoever attacks.

    `cost_nanousd` is what somebody with money pays; None where the upstream reports no usage, and the estimate is paid.
    The spaces belong to the body; they are written only when it is sent.
    """

    end: End
    name: str = ""
    line: str = CHAT
    headers: tuple[str, ...] = (KEY, JSON)
    body: bytes | str = PAID_BODY
    framing: Framing = Framing.LENGTH
    cost_nanousd: int | None = COST_NANOUSD
    spaces_before: int = 0
    spaces_after: int = 0

    def __str__(self) -> str:
        return self.name

    def raw(self, key: str) -> bytes:
        """Write the request as it goes over the wire."""
        written = self.body if isinstance(self.body, bytes) else self.body.encode()
        whole = b" " * self.spaces_before + written + b" " * self.spaces_after
        body = chunked(whole) if self.framing is Framing.CHUNKED else whole
        framing = {
            Framing.LENGTH: (f"content-length: {len(whole)}",),
            Framing.CHUNKED: ("transfer-encoding: chunked",),
            Framing.NONE: (),
        }[self.framing]
        headers = [header.replace("{key}", key) for header in self.headers]
        return "\r\n".join([f"{self.line} HTTP/1.1", "host: gateway", *framing, *headers, "", ""]).encode() + body


refused = partial(Attack, End.REFUSED)
paid = partial(Attack, End.PAID)
listed = partial(Attack, End.LISTED)


def bodiless(attack: Attack) -> Attack:
    """Send no body."""
    return replace(attack, headers=(KEY, *attack.headers[2:]), body=b"", framing=Framing.NONE)


def more(*headers: str) -> tuple[str, ...]:
    """Bring these headers beside the key."""
    return (KEY, JSON, *headers)


def padded(size: int, *, first: str = "", last: str = "") -> bytes:
    """Write a body of so many bytes, with fields before and after its text."""
    fields = [first, '"messages":[{"role":"user","content":"%s"}]', last]
    template = "{" + ",".join(filter(None, fields)) + "}"
    return (template % ("x" * (size - len(template) + len("%s")))).encode()


# Normalizing it takes time by the square of its length.
LONG_KEY = "\u0301" * 12_000 + "\u0316" * 12_000
DEEP = "[" * 10_000 + "]" * 10_000
FREE, PAID = '"model":"local-llama"', '"model":"gpt-4o"'

PATHS = (
    paid("post to models", "POST /v1/models"),
    paid("post to a model", "POST /v1/models/local-llama"),
    paid("put to models", "PUT /v1/models"),
    paid("delete of a model", "DELETE /v1/models/local-llama"),
    paid("dot segments behind models", "POST /v1/models/../chat/completions"),
    paid("dot segments behind models, escaped dots", "POST /v1/models/%2e%2e/chat/completions"),
    paid("dot segments behind models, escaped slashes", "POST /v1/models%2f..%2fchat/completions"),
    paid("dot segments behind models, all escaped", "POST /v1/models%2F%2E%2E%2Fchat%2Fcompletions"),
    paid("dot segments behind a parameter", "POST /v1/models/..;/chat/completions"),
    paid("dot segments behind health", "POST /health/../v1/chat/completions"),
    paid("dot segments behind the UI, escaped", "POST /ui/..%2fv1%2fchat%2fcompletions"),
    paid("doubled slashes", "POST //v1//chat///completions"),
    paid("doubled slash and parameter", "POST //v1/models;x"),
    paid("parameter", "POST /v1/chat/completions;x=models"),
    paid("double encoding of a letter", "POST /v1/%256dodels"),
    paid("double encoding of slashes", "POST /v1/models%252f..%252fchat%252fcompletions"),
    paid("encoded prefix", "POST /%76%31/chat/completions"),
    paid("encoded backslashes", "POST /v1/models%5c..%5cchat%5ccompletions"),
    paid("backslashes", "POST /v1/models\\..\\chat\\completions"),
    paid("upper case", "POST /V1/CHAT/COMPLETIONS"),
    paid("upper case models", "POST /V1/MODELS"),
    paid("trailing slash", "POST /v1/chat/completions/"),
    paid("query that looks like models", "POST /v1/chat/completions?/v1/models"),
    paid("absolute form", "POST http://elsewhere/v1/chat/completions"),
    paid("absolute form of models", "POST http://elsewhere/v1/models"),
    paid("absolute form with dot segments", "POST http://elsewhere/v1/models/../chat/completions"),
    paid("unknown prefix", "POST /tenant/v1/chat/completions"),
    paid("get of a call", "GET /v1/chat/completions", cost_nanousd=None),
    paid("get behind models with a body", "GET /v1/models/../chat/completions", cost_nanousd=None),
    paid("a thread that is made and run", "POST /v1/threads/runs"),
    paid("vLLM's other way to a chat", "POST /invocations"),
    paid("TGI's way to an answer", "POST /generate"),
    paid("TGI's way at the root", "POST /"),
    paid("Triton's way", "POST /v2/models/gpt-4o/generate"),
    paid("a model of Google's that was tuned", "POST /v1alpha/tunedModels/x:generateContent"),
    paid("a batch of an unknown provider", "POST /groq/v1/batches"),
    # The upstream answers with the free model's name, as films and agents do not.
    paid("a film, a free model in the body", "POST /v1/videos/x/remix", body=FREE_BODY, cost_nanousd=0),
    paid("an agent, a free model in the body", "POST /a2a/x", body=FREE_BODY, cost_nanousd=0),
    paid("a call behind a colon", "POST /v1/models/gpt-4o:generateContent"),
    refused("paid behind a colon, free in the body", "POST /v1/models/gpt-4o:generateContent", body=FREE_BODY),
    refused("the same at another version", "POST /v1beta/models/gpt-4o:streamGenerateContent", body=FREE_BODY),
    refused("the same with a parameter", "POST /v1/models/gpt-4o;x:generateContent", body=FREE_BODY),
    refused("the same behind a provider", "POST /gemini/v1beta/models/gpt-4o:generateContent", body=FREE_BODY),
    refused(
        "paid deployment, free in the body", "POST /azure/openai/deployments/gpt-4o/chat/completions", body=FREE_BODY
    ),
    refused("the same, with a parameter", "POST /azure/openai/deployments/gpt-4o;x/chat/completions", body=FREE_BODY),
    refused("paid Bedrock model, free in the body", "POST /bedrock/model/gpt-4o/converse", body=FREE_BODY),
    paid("a call behind a colon, the model in the path alone", "POST /v1/models/gpt-4o:predict", body="{}"),
    bodiless(refused("get behind models", "GET /v1/models/../chat/completions")),
    bodiless(refused("get behind models, escaped", "GET /v1/models%2f..%2fchat/completions")),
    bodiless(refused("get of models with a parameter", "GET //v1/models;x")),
    bodiless(refused("get of models, double encoding", "GET /v1/%256dodels")),
    bodiless(refused("get of models, escaped slash", "GET /v1%2fmodels")),
    bodiless(refused("post to models without a body", "POST /v1/models")),
    refused("null byte in the path", "POST /v1/models%00/../chat/completions"),
    refused("fragment", "POST /v1/chat/completions#/v1/models"),
    refused("asterisk form", "POST *"),
    refused("no path", "POST v1/chat/completions"),
    bodiless(refused("connect", "CONNECT upstream:443")),
    bodiless(
        paid(
            "websocket",
            "GET /v1/realtime?model=gpt-4o",
            headers=more("connection: upgrade", "upgrade: websocket"),
            cost_nanousd=None,
        )
    ),
    refused(
        "websocket with a body",
        "POST /v1/chat/completions",
        headers=more("connection: upgrade", "upgrade: websocket"),
    ),
    bodiless(paid("realtime without an upgrade", "GET /v1/realtime?model=gpt-4o", cost_nanousd=None)),
    paid(
        "upgrade to h2c",
        headers=more("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"),
    ),
    bodiless(listed("upper case list", "GET /V1/MODELS")),
    bodiless(listed("list with a query", "GET /v1/models?model=gpt-4o&/../chat/completions")),
    bodiless(listed("doubled slashes that Envoy merges", "GET //v1//models")),
    listed("list with a body", "GET /v1/models"),
    listed("list with a chunked body", "GET /v1/models", framing=Framing.CHUNKED),
)

BODIES = (
    refused("two models, free first", body=f"{{{FREE},{PAID},{MESSAGES}}}"),
    refused("two models, paid first", body=f"{{{PAID},{FREE},{MESSAGES}}}"),
    refused("the same model twice", body=f"{{{FREE},{FREE},{MESSAGES}}}"),
    refused("model and MODEL", body=f'{{{FREE},"MODEL":"gpt-4o",{MESSAGES}}}'),
    refused("MODEL alone", body=f'{{"MODEL":"gpt-4o",{MESSAGES}}}'),
    refused("model and an escaped model", body=f'{{{FREE},"mod\\u0065l":"gpt-4o",{MESSAGES}}}'),
    refused("model and an escaped Model", body=f'{{{FREE},"\\u004dodel":"gpt-4o",{MESSAGES}}}'),
    refused("model and a full-width model", body=f'{{{FREE},"\uff4dodel":"gpt-4o",{MESSAGES}}}'),
    refused("model and a model in extra_body", body=f'{{{FREE},"extra_body":{{{PAID}}},{MESSAGES}}}'),
    paid("escaped model alone", body=f'{{"mod\\u0065l":"gpt-4o",{MESSAGES}}}'),
    paid("a list of models", body=f'{{"model":["local-llama","gpt-4o"],{MESSAGES}}}'),
    paid("models with a comma", body=f'{{"model":"local-llama,gpt-4o",{MESSAGES}}}'),
    refused("a model with a space", body=f'{{"model":" gpt-4o",{MESSAGES}}}'),
    refused("a model that is an object", body=f'{{"model":{{"free":"local-llama"}},{MESSAGES}}}'),
    refused("free in the query, paid in the body", "POST /v1/chat/completions?model=local-llama"),
    refused("paid in the query, free in the body", "POST /v1/chat/completions?model=gpt-4o", body=FREE_BODY),
    refused("paid in a header, free in the body", headers=more("x-litellm-model: gpt-4o"), body=FREE_BODY),
    refused("paid in the path, free in the body", "POST /engines/gpt-4o/chat/completions", body=FREE_BODY),
    # The upstream says that the free model answered, as it may: held is what the paid one would have cost.
    paid("paid fallbacks", body=f'{{{FREE},"fallbacks":["gpt-4o"],{MESSAGES}}}', cost_nanousd=0),
    paid("paid fallbacks, as objects", body=f'{{{FREE},"fallbacks":[{{{PAID}}}],{MESSAGES}}}', cost_nanousd=0),
    paid(
        "paid fallbacks for a long context",
        body=f'{{{FREE},"context_window_fallbacks":[{{"local-llama":["gpt-4o"]}}],{MESSAGES}}}',
        cost_nanousd=0,
    ),
    refused("FALLBACKS", body=f'{{{FREE},"FALLBACKS":["gpt-4o"],{MESSAGES}}}'),
    paid("a stored prompt", body=f'{{{FREE},"prompt_id":"paid",{MESSAGES}}}', cost_nanousd=0),
    refused("a deployment of one's own", body=f'{{{FREE},"user_config":{{"model_list":[]}},{MESSAGES}}}'),
    refused("another deployment", body=f'{{{FREE},"deployment_id":"gpt-4o",{MESSAGES}}}'),
    refused("a price of one's own", body=f'{{{PAID},"input_cost_per_token":1e-15,{MESSAGES}}}'),
    paid("a key that takes long to fold", body=f'{{{PAID},"{LONG_KEY}":1,{MESSAGES}}}'),
    paid("20 MB", spaces_after=20 * MEBIBYTE),
    paid("20 MB in chunks", spaces_after=20 * MEBIBYTE, framing=Framing.CHUNKED),
    refused("20 MB with the model at the end", spaces_before=20 * MEBIBYTE),
    refused("20 MB in chunks with the model at the end", spaces_before=20 * MEBIBYTE, framing=Framing.CHUNKED),
    refused("10,000 levels", body=f'{{{FREE},"messages":{DEEP}}}'),
    refused("10,000 levels before the model", body=f'{{"messages":{DEEP},{FREE}}}'),
    refused("10,000 levels and no end", body=f'{{{FREE},"messages":{"[" * 10_000}'),
    refused("invalid UTF-8 in a text", body=b'{%s,"messages":"\xff"}' % FREE.encode()),
    refused("invalid UTF-8 in a key", body=b'{%s,"\xc3\x28":1}' % FREE.encode()),
    refused("invalid UTF-8 in the model", body=b'{"model":"gpt-4o\xc0\x80"}'),
    refused("lone surrogate in the model", body='{"model":"gpt-4o\\ud800"}'),
    refused("UTF-16", body=PAID_BODY.decode().encode("utf-16")),
    refused("byte order mark", body=b"\xef\xbb\xbf" + FREE_BODY),
    bodiless(refused("no body")),
    refused("empty body", body=b""),
    refused("white space", body=b"   "),
    refused("not JSON", body="model=gpt-4o"),
    refused("a comment", body=f"{{{FREE},/*{PAID}*/{MESSAGES}}}"),
    refused("a list instead of an object", body=f"[{PAID_BODY.decode()}]"),
    refused("two documents", body=FREE_BODY + PAID_BODY),
    refused("a cut document", body=FREE_BODY[:-1]),
    refused("text/plain", headers=(KEY, "content-type: text/plain")),
    refused("a form", headers=(KEY, "content-type: application/x-www-form-urlencoded"), body="model=gpt-4o"),
    refused("a multipart form", headers=(KEY, "content-type: multipart/form-data; boundary=x")),
    refused("another charset", headers=(KEY, "content-type: application/json; charset=utf-16")),
    refused("two content types", headers=(KEY, JSON, "content-type: text/plain")),
    paid("no content type", headers=(KEY,)),
    refused("gzip", headers=more("content-encoding: gzip"), body=gzip.compress(PAID_BODY, mtime=0)),
    refused("gzip that nobody mentions", body=gzip.compress(PAID_BODY, mtime=0)),
)

HEADERS = (
    refused("different keys", headers=(KEY, "x-api-key: sk-rich-friend", JSON)),
    refused("different keys in x-api-key and api-key", headers=("x-api-key: {key}", "api-key: sk-rich-friend", JSON)),
    refused("a stranger's key first", headers=("x-api-key: sk-rich-friend", KEY, JSON)),
    refused("two authorizations", headers=(KEY, "authorization: Bearer sk-rich-friend", JSON)),
    refused("two authorizations, the same", headers=(KEY, KEY, JSON)),
    refused("two keys in one authorization", headers=(KEY + ", Bearer sk-rich-friend", JSON)),
    refused("two x-api-keys", headers=("x-api-key: {key}", "x-api-key: sk-rich-friend", JSON)),
    refused("two x-api-keys, the same", headers=("x-api-key: {key}", "x-api-key: {key}", JSON)),
    refused("basic authorization", headers=("authorization: Basic {key}", JSON)),
    refused("no key", headers=(JSON,)),
    refused("an empty key", headers=("authorization: Bearer ", JSON)),
    paid("the same key in all places", headers=(KEY, "x-api-key: {key}", "api-key: {key}", JSON)),
    paid("a forged id", headers=more("x-extauthz-id: mine")),
    paid("a forged id, twice", headers=more("x-extauthz-id: mine", "X-EXTAUTHZ-ID: yours")),
    paid("a forged hold", headers=more("x-extauthz-r: v1.e30.AAAA", "x-extauthz-reservation: mine")),
    paid("forged words to the filters", headers=more("x-extauthz-models: free_only", "x-extauthz-inject: true")),
    paid("a forged token", headers=more("x-extauthz-token: secret", "x-extauthz-anything: 1")),
    paid(
        "words that Envoy believes",
        headers=more("x-envoy-original-path: /v1/models", "x-envoy-auth-partial-body: false"),
    ),
    paid("another path in a header", headers=more("x-original-url: /v1/models", "x-rewrite-url: /v1/models")),
    paid("a call disguised as a read", headers=more("x-http-method-override: GET")),
    bodiless(refused("a read disguised as a call", "GET /v1/models", headers=more("x-http-method-override: POST"))),
    bodiless(
        refused("a read of one model disguised", "GET /v1/models/gpt-4o", headers=more("x-method-override: POST"))
    ),
    paid(
        "a preflight disguised as a call",
        "OPTIONS /v1/chat/completions",
        headers=more(
            "origin: https://a.example", "access-control-request-method: POST", "x-http-method-override: POST"
        ),
    ),
    refused("length and chunks", headers=more("transfer-encoding: chunked")),
    refused("two lengths", headers=more("content-length: 3")),
    refused("chunks that are none", headers=(KEY, JSON, "transfer-encoding: chunked"), framing=Framing.NONE),
    refused("a negative length", headers=(KEY, JSON, "content-length: -1"), framing=Framing.NONE),
    refused("a space before the colon", headers=("authorization : Bearer {key}", JSON)),
    paid("a key in a folded header", headers=more("x-folded: 1\r\n authorization: Bearer sk-rich-friend")),
    refused("huge headers", headers=more(*(f"x-filler-{number}: {'x' * 1000}" for number in range(90)))),
    refused("too many headers", headers=more(*(f"x-filler-{number}: x" for number in range(200)))),
)

ATTACKS = (*PATHS, *BODIES, *HEADERS)
