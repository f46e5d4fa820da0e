"""An ext_proc server that sees every piece of an answer, as gateways have it that meter outside of Envoy.

It only lets the pieces pass, and reads nothing: the least that such metering costs. It runs on the gRPC server that
ours runs on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc.aio
import pygrpc_native.aio

from extauthz._proto.envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from extauthz._proto.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyResponse,
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
)
from tests.support.processes import LOOPBACK

_HEADERS = ProcessingResponse(response_headers=HeadersResponse())
_BODY = ProcessingResponse(response_body=BodyResponse())


class Metering(external_processor_pb2_grpc.ExternalProcessorServicer):
    """Lets everything pass."""

    async def Process(  # noqa: N802 - gRPC's name
        self,
        request_iterator: AsyncIterator[ProcessingRequest],
        context: grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse],  # noqa: ARG002 - gRPC's
    ) -> AsyncIterator[ProcessingResponse]:
        """Answer each message of a request."""
        async for request in request_iterator:
            yield _BODY if request.WhichOneof("request") == "response_body" else _HEADERS


async def main(port: int) -> None:
    """Serve until it is stopped."""
    server = pygrpc_native.aio.server()
    external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(Metering(), server)
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
