"""Requests as clients write them: JSON, and forms with a file in them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.support.apis.wire import JSON

PROMPT = "Tell me what every token costs."
BOUNDARY = "boundary-of-the-tests"
# Bytes of a file that hold what a careless reader of forms would take for its end, and for a field.
MISLEADING = b'RIFF\r\n--boundary\r\nContent-Disposition: form-data; name="model"\r\n\r\nlocal-llama\r\n'
FILE = MISLEADING + b"\x00\xff" * 10_000


@dataclass(frozen=True, slots=True)
class Asking:
    """A request but for who asks: its method, its path with the query, and its body."""

    path: str
    body: bytes = b""
    content_type: str = JSON
    method: str = "POST"


def posted(path: str, **fields: object) -> Asking:
    """Ask with a JSON body."""
    return Asking(path, json.dumps(fields).encode())


def uploaded(path: str, *, file: str | None, **fields: str) -> Asking:
    """Ask with a form; `file` names the field that holds a file."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if file is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{file}"; filename="it.bin"\r\n'
        parts.insert(1, head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + FILE + b"\r\n")
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return Asking(path, body, f"multipart/form-data; boundary={BOUNDARY}")


def read(path: str, *, method: str = "GET") -> Asking:
    """Ask without a body."""
    return Asking(path, method=method)
