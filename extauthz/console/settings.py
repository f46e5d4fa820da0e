"""`extauthz config` and `extauthz log-level`: how a running server is set."""

from __future__ import annotations

from extauthz._proto.extauthz.diagnostics.v1 import diagnostics_pb2 as pb
from extauthz.console.connection import Server
from extauthz.console.text import clean


async def configuration(server: Server) -> pb.GetConfigResponse:
    """Ask for the configuration in force."""
    return await server.ask("GetConfig", pb.GetConfigRequest(), pb.GetConfigResponse)


async def log_level(server: Server, level: str) -> str:
    """Change how much the server logs; an empty level only asks."""
    return (await server.ask("SetLogLevel", pb.SetLogLevelRequest(level=level), pb.SetLogLevelResponse)).level


def to_yaml(answer: pb.GetConfigResponse) -> str:
    """Give the configuration as YAML, with its digest and what was said about it as comments."""
    remarks = "".join(f"# {clean(notice)}\n" for notice in (f"digest {answer.digest}", *answer.notices))
    return f"{remarks}{answer.yaml.rstrip()}\n"
