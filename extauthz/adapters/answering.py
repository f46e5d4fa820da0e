"""How operators are answered: within a time, and with a status and a sentence where something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from extauthz.errors import AbsentError, BusyError, ImpossibleError, StoreUnavailableError, UnclearError

# How long an answer may take.
ANSWER_S = 10.0

# Some of it quotes what was asked. Longer details would not get through: clients take 8 KiB, and each letter may be 12.
DETAILS_CHARS_MAX = 600

_CODES: Mapping[type[Exception], grpc.StatusCode] = {
    UnclearError: grpc.StatusCode.INVALID_ARGUMENT,
    AbsentError: grpc.StatusCode.NOT_FOUND,
    ImpossibleError: grpc.StatusCode.FAILED_PRECONDITION,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[Any, Any]


class Answering(Protocol):
    """A service whose methods answer operators."""

    def failed(self, error: Exception) -> None:
        """Hear of a failure of ours, for the log."""


Service = TypeVar("Service", bound=Answering)
Request = TypeVar("Request")
Answer = TypeVar("Answer")
Method = Callable[[Service, Request, Context], Awaitable[Answer]]


def answering(
    seconds_max: float | None = ANSWER_S,
) -> Callable[[Method[Service, Request, Answer]], Method[Service, Request, Answer]]:
    """Have a method answer within a time, and turn what it raises into a status."""

    def decorate(method: Method[Service, Request, Answer]) -> Method[Service, Request, Answer]:
        @wraps(method)
        async def answer(self: Service, request: Request, context: Context) -> Answer:
            try:
                async with asyncio.timeout(seconds_max):
                    return await method(self, request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - each becomes a status
                code, details = _status_of(error)
                if code is grpc.StatusCode.INTERNAL:
                    self.failed(error)
                await context.abort(code, details[:DETAILS_CHARS_MAX])

        return answer

    return decorate


def _status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Tell what a call ends with that failed: a mistake of the caller's says so, one of ours is for the log."""
    match error:
        case StoreUnavailableError():
            return _CODES[type(error)], f"the store does not answer ({error}): ask again when it is back"
        case TimeoutError():
            return grpc.StatusCode.DEADLINE_EXCEEDED, "this took too long: look what of it was done, and ask again"
        case _ if type(error) in _CODES:
            return _CODES[type(error)], str(error)
        case _:
            return grpc.StatusCode.INTERNAL, "this failed, and the server's log says why"
