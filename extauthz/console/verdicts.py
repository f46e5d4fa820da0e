"""`extauthz check`: one real Check, what came of it, and nothing left held."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from google.rpc import code_pb2
from rich.text import Text

from extauthz._proto.envoy.config.core.v3.base_pb2 import HeaderValueOption
from extauthz._proto.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from extauthz._proto.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from extauthz.console.connection import ServerAwayError
from extauthz.console.decisions import STYLES
from extauthz.console.gate import at_gate
from extauthz.console.inputs import Expectation, Question
from extauthz.console.target import Target
from extauthz.console.text import clean, new_console
from extauthz.domain.credentials import CREDENTIAL_HEADERS
from extauthz.domain.verdict import Word
from extauthz.envoy.names import HOLD_KEY, ID_EXTENSION, ID_HEADER, REASON_KEY
from extauthz.errors import ExtauthzError

Document = dict[str, object]

MASKED = "********"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a Check was answered.

    `status` is what the client sees, None where the upstream answers. `to_client` and `to_upstream` are the headers
    that are set, and `removed` those that the upstream does not get. `released` says that money was held, and is no
    more.
    """

    word: Word
    status: int | None
    reason: str
    message: str
    to_client: Mapping[str, str]
    to_upstream: Mapping[str, str]
    removed: tuple[str, ...]
    released: bool

    def meets(self, expected: Expectation) -> bool:
        """Tell whether it is as expected."""
        return self.word == expected.word and expected.status in (None, self.status)

    def document(self, expected: Expectation) -> Document:
        """Give it as JSON's values."""
        return {
            "ok": self.meets(expected),
            "expected": str(expected),
            "verdict": str(self.word),
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "headers": dict(self.to_client),
            "upstream_headers": dict(self.to_upstream),
            "removed_headers": list(self.removed),
            "released": self.released,
        }


async def checked(target: Target, question: Question, reservation_id: str, seconds: float) -> Verdict:
    """Make a Check as Envoy does, and end at once what it may have reserved.

    The id is written like Envoy's own, so that the reservation ends also when its answer never came. Raises
    ServerAwayError, GateRefusedError, and OSError for certificates.
    """
    async with at_gate(target, seconds) as gate:
        try:
            answer = await gate.check(_request(question, reservation_id))
        except ServerAwayError:
            with suppress(ExtauthzError):
                await gate.never_sent(reservation_id, None)
            raise
        holds = HOLD_KEY in answer.dynamic_metadata
        if holds:
            await gate.never_sent(reservation_id, answer)
    return _verdict(answer, released=holds)


def show(verdict: Verdict, expected: Expectation) -> None:
    """Print the verdict, what goes with it, and whether it is as expected."""
    console = new_console()
    style = f"bold {STYLES.get(verdict.word, '')}".strip()
    console.print(Text(f"{_past(verdict.word)}: {' '.join(_told(verdict))}", style))
    for title, headers in (("to the client", verdict.to_client), ("to the upstream", verdict.to_upstream)):
        for name, value in headers.items():
            console.print(f"  {title}: {clean(name)}: {clean(value)}")
    if verdict.removed:
        console.print(f"  not to the upstream: {', '.join(map(clean, verdict.removed))}")
    if verdict.released:
        console.print("  money was held, and is released")
    if verdict.meets(expected):
        console.print(Text("as expected", "green"))
    else:
        console.print(Text(f"expected: {expected}", "bold red"))


def _told(verdict: Verdict) -> Iterator[str]:
    if verdict.status is not None:
        yield str(verdict.status)
    yield clean(verdict.reason) + (":" if verdict.message else "")
    if verdict.message:
        yield clean(verdict.message)


def _past(word: Word) -> str:
    return "denied" if word is Word.DENY else "allowed"


def _request(question: Question, reservation_id: str) -> CheckRequest:
    """Write down a request as Envoy would see it."""
    text = question.body
    if question.model and not text:
        text = json.dumps({"model": question.model, "messages": []})
    body = text.encode()
    headers = {"content-length": str(len(body))}
    if body:
        headers["content-type"] = "application/json"
    if question.caller.key:
        headers["authorization"] = f"Bearer {question.caller.key}"
    headers |= {**question.headers, ID_HEADER: reservation_id}
    http = AttributeContext.HttpRequest(method=question.method, path=question.path, headers=headers, raw_body=body)
    return CheckRequest(
        attributes=AttributeContext(
            request=AttributeContext.Request(http=http),
            context_extensions={**question.context, ID_EXTENSION: "header"},
        )
    )


def _verdict(answer: CheckResponse, *, released: bool) -> Verdict:
    reason = dict(answer.dynamic_metadata.items()).get(REASON_KEY, "")
    ok, denied = answer.ok_response, answer.denied_response
    if answer.status.code == code_pb2.OK:
        return Verdict(
            word=Word.ALLOW,
            status=None,
            reason=str(reason),
            message="",
            to_client=_headers(ok.response_headers_to_add),
            to_upstream=_headers(ok.headers),
            removed=tuple(ok.headers_to_remove),
            released=released,
        )
    status = int(denied.status.code) or HTTPStatus.FORBIDDEN
    return Verdict(
        word=Word.ALLOW if status < HTTPStatus.BAD_REQUEST else Word.DENY,  # a list that is answered here
        status=status,
        reason=str(reason),
        message=_message(denied.body),
        to_client=_headers(denied.headers),
        to_upstream={},
        removed=(),
        released=released,
    )


def _headers(options: Iterable[HeaderValueOption]) -> dict[str, str]:
    """Take the headers; a key of the upstream's is none of our readers' business."""
    return {
        option.header.key: MASKED if option.header.key.lower() in CREDENTIAL_HEADERS else option.header.value
        for option in options
    }


def _message(body: str) -> str:
    """Take the sentence out of a refusal in OpenAI's shape; the whole text where it has another."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body
