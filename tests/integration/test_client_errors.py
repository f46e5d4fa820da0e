"""What the official clients make of a refusal: their own errors, with the reason in them, and no second attempt."""

import json

import anthropic
import httpx2
import openai
import pytest
from google.genai import errors as genai_errors

from extauthz.adapters.responses import denied
from extauthz.domain.endpoints import Api
from extauthz.domain.verdict import Deny, Reason


def refusal(status: int) -> Deny:
    """Refuse with a status."""
    return Deny(
        Reason.BUDGET_EXCEEDED,
        status=status,
        type="budget_exceeded",
        message="Budget has been exceeded! Team=research",
        code=str(status),
        retry_after_s=60,
        scope="team:research",
    )


class Refusing:
    """A gate that refuses everything, and counts what it refuses."""

    def __init__(self, status: int, api: Api) -> None:
        self.asked = 0
        answer = denied(refusal(status), api).denied_response
        self._status, self._body = status, answer.body.encode()
        self._headers = {header.header.key: header.header.value for header in answer.headers}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Refuse one request."""
        self.asked += 1
        return httpx2.Response(self._status, headers=self._headers, content=self._body, request=request)

    @property
    def http_client(self) -> httpx2.Client:
        """A client whose every request comes here."""
        return httpx2.Client(transport=httpx2.MockTransport(self))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (503, anthropic.InternalServerError),
    ],
)
def test_anthropics_client(status: int, error: type[anthropic.APIStatusError]) -> None:
    """Anthropic's client raises its own error of each status, and asks once."""
    gate = Refusing(status, Api.ANTHROPIC)
    client = anthropic.Anthropic(api_key="k", http_client=gate.http_client)

    with pytest.raises(error, match=r"budget_exceeded, team:research"):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
    assert gate.asked == 1


def test_openais_client() -> None:
    """OpenAI's client raises its rate-limit error, with the reason as its type, and asks once."""
    gate = Refusing(429, Api.OPENAI)
    client = openai.OpenAI(api_key="k", http_client=gate.http_client)

    with pytest.raises(openai.RateLimitError) as raised:
        client.responses.create(model="m", input="hi")
    assert (raised.value.type, raised.value.code, gate.asked) == ("budget_exceeded", "429", 1)


def test_googles_client() -> None:
    """Google's client shows code, status, message and details of a refusal."""
    error = genai_errors.ClientError(429, json.loads(denied(refusal(429), Api.GEMINI).denied_response.body))

    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    assert error.message == "Budget has been exceeded! Team=research"
    assert "BUDGET_EXCEEDED" in str(error.details)
