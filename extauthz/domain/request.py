"""The facts of one request, as the adapter found them and before anybody judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from extauthz.domain.value import value


@value
class RequestFacts:
    """One downstream request.

    `path` is as it came, with its query. `headers` have lower-case names and keep repeated values apart where Envoy
    does. `body` may be only the beginning of it: `unseen_bytes` more were sent. `context` are the route's context
    extensions, which no client can write. `peer` is the name in the client certificate of the connection, if it has
    one.
    """

    method: str
    path: str
    headers: Mapping[str, tuple[str, ...]]
    body: bytes = b""
    unseen_bytes: int = 0
    context: Mapping[str, str] = field(default_factory=dict)
    peer: str | None = None

    @property
    def truncated(self) -> bool:
        """Whether the body is longer than what is here: it may then say anything."""
        return self.unseen_bytes > 0

    def header(self, name: str) -> str | None:
        """Give the first value of a header, None when it is absent."""
        values = self.headers.get(name)
        return values[0] if values else None
