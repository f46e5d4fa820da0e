"""envoyproxy/ratelimit, the Go service that limits by counters in Redis: its process, and what it is asked.

A request has four descriptors, as many as ours has counters. Whoever limits LLM traffic by it counts requests or
tokens, not money, and nothing is held or given back.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from bench.rig import CACHE
from tests.support.processes import LOOPBACK, Process, free_port

PROGRAM = CACHE / "ratelimit/service_cmd"
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
DOMAIN = "bench"
DESCRIPTORS = ("global", "organization", "team", "key")
# The largest that its configuration takes; nobody comes to the end of it.
PLENTY = 4_000_000_000

_VARINT_BITS = 7


class RateLimit:
    """The service, running and ready while the `async with` block does."""

    def __init__(self, redis_port: int) -> None:
        self._folder = TemporaryDirectory(prefix="ratelimit-")
        config = Path(self._folder.name) / "bench/config"
        config.mkdir(parents=True)
        limits = "".join(
            f"  - {{key: {name}, rate_limit: {{unit: day, requests_per_unit: {PLENTY}}}}}\n" for name in DESCRIPTORS
        )
        (config / "config.yaml").write_text(f"domain: {DOMAIN}\ndescriptors:\n{limits}", encoding="utf-8")
        self.port = free_port()
        self._process = Process(
            PROGRAM,
            environment={
                "REDIS_TYPE": "SINGLE",
                "REDIS_SOCKET_TYPE": "tcp",
                "REDIS_URL": f"{LOOPBACK}:{redis_port}",
                "RUNTIME_ROOT": self._folder.name,
                "RUNTIME_SUBDIRECTORY": "bench",
                "RUNTIME_WATCH_ROOT": "false",
                "USE_STATSD": "false",
                "DISABLE_STATS": "true",
                "LOG_LEVEL": "error",
                "HOST": LOOPBACK,
                "PORT": str(free_port()),
                "GRPC_HOST": LOOPBACK,
                "GRPC_PORT": str(self.port),
                "DEBUG_HOST": LOOPBACK,
                "DEBUG_PORT": str(free_port()),
            },
        )

    async def __aenter__(self) -> Self:
        await self._process.__aenter__()
        await self._process.wait_for_port(self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._process.__aexit__(kind, error, traceback)
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid


def rate_limit(number: int, keys_per_team: int) -> bytes:
    """Ask whether a key may: a RateLimitRequest, written by hand, since nothing else here knows its messages."""
    values = ("all", "acme", f"team-{number // keys_per_team:05}", f"sk-bench-{number:07}")
    descriptors = (
        _field(2, _field(1, _field(1, name.encode()) + _field(2, value.encode())))
        for name, value in zip(DESCRIPTORS, values, strict=True)
    )
    return _field(1, DOMAIN.encode()) + b"".join(descriptors)


def described() -> FileDescriptorProto:
    """Describe the call to programs that want to know of one. The messages keep what is in them, known or not."""
    package, service, call = METHOD.split("/")[1].rpartition(".")[0], "RateLimitService", METHOD.split("/")[2]
    request, response = DescriptorProto(name="RateLimitRequest"), DescriptorProto(name="RateLimitResponse")
    method = MethodDescriptorProto(
        name=call, input_type=f".{package}.{request.name}", output_type=f".{package}.{response.name}"
    )
    return FileDescriptorProto(
        name="rls.proto",
        package=package,
        syntax="proto3",
        message_type=[request, response],
        service=[ServiceDescriptorProto(name=service, method=[method])],
    )


def _field(number: int, content: bytes) -> bytes:
    """Write a field of bytes, text or a message: its number and type, its length, itself."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number >> _VARINT_BITS:
        groups.append(number & 0x7F | 0x80)
        number >>= _VARINT_BITS
    groups.append(number)
    return bytes(groups)
