"""A gRPC port on which some unary calls are answered as they come, with as little as can be around them.

pygrpc-native carries HTTP/2 outside the GIL and hands its calls over in batches. Its own server for asyncio serves any
service as grpc.aio does: a context, a codec and, where callers have to prove themselves, interceptors for each call. An
empty handler takes 37 µs there and 25 here, or 21 where its answer is there at once. Every other call (health,
reflection, streams) goes to a grpcio server on a Unix socket behind the port.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from extauthz.adapters.proof import Proof

# Calls that are handed over at once.
BATCH_MAX = 64

# How long a server that stops waits for its last answers to be written, in seconds. It takes milliseconds.
WRITTEN_SECONDS_MAX = 1.0

# Calls of its own from which it knows that they are: enough for some 180 connections that all have answers to come.
WRITTEN_CALLS = 4

# What a caller is told, and nothing more, where something of ours goes wrong.
FAILED = "the call failed"

# What a method answers to a message, given the seconds that its caller waits (None for any time); None when it cannot.
# An answer that waits for nobody is there at once: without a task of its own it takes a tenth less.
Later = Callable[[], Awaitable[bytes | None]]
Unary = Callable[[bytes, float | None], bytes | Later]


class FrontServer(grpc.aio.Server):
    """Answers the unary methods of `direct` by itself, and lets a grpcio server, `behind`, answer the others.

    `proof` tells what callers send to be let in, None when they need not; `behind` must see to that by itself.
    `unable` is what those are told whom a method cannot answer: UNAVAILABLE, for this reason.
    """

    def __init__(
        self,
        behind: grpc.aio.Server,
        direct: Mapping[str, Unary],
        *,
        proof: Callable[[], Proof | None],
        message_bytes_max: int,
        unable: str,
    ) -> None:
        self._behind = behind
        self._paths = tuple(direct)
        self._methods = tuple(direct.values())
        self._proof = proof
        self._message_bytes_max = message_bytes_max
        self._unable = unable
        self._front: NativeGrpcFront | None = None
        self._target = ""
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._answers: list[tuple[int, bytes]] = []
        self._folder: str | None = None
        self._stopping = False
        self._stopped = asyncio.Event()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Have calls answered behind."""
        self._behind.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Have calls answered behind; those of a method that is answered here never get there."""
        self._behind.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Bind the one port. Raises OSError when it cannot be had."""
        methods = [(path, False) for path in self._paths]
        # One thread carries more calls than one core of Python answers.
        self._front = NativeGrpcFront(
            address, methods, io_threads=1, call_details=True, keepalive_permit_without_calls=False
        )
        self._target = f"{address.rpartition(':')[0]}:{self._front.bound_port}"
        return self._front.bound_port

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Refuse: the front has no TLS."""
        raise NotImplementedError("use a grpcio server for TLS")

    async def start(self) -> None:
        """Take calls from now on."""
        front = self._opened
        self._folder = tempfile.mkdtemp(prefix="extauthz-")  # nobody else may connect to what stands in it
        path = Path(self._folder) / "behind.sock"
        self._behind.add_insecure_port(f"unix:{path}")
        await self._behind.start()
        front.set_fallback(str(path))
        front.start()
        threading.Thread(
            target=self._hand_over, args=(front, asyncio.get_running_loop()), name="front", daemon=True
        ).start()

    async def stop(self, grace: float | None) -> None:
        """Take no more calls, and give those that are under way so many seconds."""
        if self._stopping:
            await self._stopped.wait()
            return
        self._stopping = True
        loop = asyncio.get_running_loop()
        until = loop.time() + (grace or 0.0)
        calls = [*self._calls.values()]
        if calls and grace:
            await asyncio.wait(calls, timeout=grace)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self._send(self._opened)
        if grace:
            await self._written()
        # Right before the end: what a client writes to a stream that finds nobody behind is lost.
        await self._behind.stop(max(0.0, until - loop.time()) if grace else grace)
        await loop.run_in_executor(None, self._opened.close)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - grpc.aio's signature
        """Wait until it is stopped, for so many seconds at most; False when it is."""
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    async def _written(self) -> None:
        """Wait until the answers that the front has got so far are written.

        Once it is closed, the front drops what it has not written, and it does not tell what that is: even its metrics
        count an answer before it is written. But its one thread looks for new frames only when it has nothing else to
        do, or after 61 turns. So by the time it has answered calls of our own, one after the other, it has written what
        came before them. One is not enough: the thread can find its connection together with the answers.
        """
        async with grpc.aio.insecure_channel(self._target, options=[("grpc.enable_http_proxy", 0)]) as channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._paths[0])
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITTEN_SECONDS_MAX):
                    for _ in range(WRITTEN_CALLS):
                        with suppress(grpc.aio.AioRpcError):  # each is refused, as the server is stopping
                            await ask(b"")

    @property
    def _opened(self) -> NativeGrpcFront:
        if self._front is None:
            raise RuntimeError("add a port first")
        return self._front

    def _hand_over(self, front: NativeGrpcFront, loop: asyncio.AbstractEventLoop) -> None:
        """Bring calls to the loop, from a thread of its own, until the front is closed."""
        while (events := front.recv_batch_details(BATCH_MAX)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, front, events)
            except RuntimeError:  # the loop was closed, and nobody stopped the server
                front.close()
                return

    def _take(self, front: NativeGrpcFront, events: Sequence[tuple[Any, ...]]) -> None:
        proof = self._proof()
        for kind, call_id, method, payload, _, details in events:
            if kind == EVENT_CANCEL:
                if (call := self._calls.pop(call_id, None)) is not None:
                    call.cancel()
                continue
            metadata, _, remaining_s = details
            if self._stopping:
                _fail(front, call_id, grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            elif proof is not None and not any(proof.accepts(name, value) for name, value in metadata):
                _fail(front, call_id, grpc.StatusCode.UNAUTHENTICATED, proof.hint)
            elif len(payload) > self._message_bytes_max:
                reason = f"a message has at most {self._message_bytes_max} bytes"
                _fail(front, call_id, grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            else:
                self._call(front, call_id, self._methods[method], payload, remaining_s)

    def _call(
        self, front: NativeGrpcFront, call_id: int, method: Unary, payload: bytes, remaining_s: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            answer = method(payload, remaining_s)
        except DecodeError:
            _fail(front, call_id, grpc.StatusCode.INTERNAL, "the message cannot be read")
        except Exception as error:  # noqa: BLE001 - the other calls of the batch go on
            _fail(front, call_id, grpc.StatusCode.UNKNOWN, FAILED)
            loop.call_exception_handler({"message": FAILED, "exception": error})
        else:
            if isinstance(answer, bytes):
                self._respond(front, call_id, answer)
            else:
                self._calls[call_id] = loop.create_task(self._answer(front, call_id, answer))

    async def _answer(self, front: NativeGrpcFront, call_id: int, later: Later) -> None:
        """Send an answer when it is there; a call that was cancelled gets none, since nobody waits for it."""
        try:
            answer = await later()
        except Exception:
            _fail(front, call_id, grpc.StatusCode.UNKNOWN, FAILED)
            raise  # the loop tells of it
        else:
            if answer is None:
                _fail(front, call_id, grpc.StatusCode.UNAVAILABLE, self._unable)
            else:
                self._respond(front, call_id, answer)
        finally:
            self._calls.pop(call_id, None)

    def _respond(self, front: NativeGrpcFront, call_id: int, answer: bytes) -> None:
        """Send an answer with the others of this turn of the loop.

        Each that goes alone wakes the front's thread, which costs up to 30 µs where it has to have the same core.
        """
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._send, front)
        self._answers.append((call_id, answer))

    def _send(self, front: NativeGrpcFront) -> None:
        answers, self._answers = self._answers, []
        for call_id, answer in answers:
            front.respond(call_id, answer)


def _fail(front: NativeGrpcFront, call_id: int, code: grpc.StatusCode, reason: str) -> None:
    front.fail(call_id, code.value[0], reason)
