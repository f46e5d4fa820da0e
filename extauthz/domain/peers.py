"""Who a client certificate belongs to: the peer's own, or the one that a trusted hop before Envoy saw.

Envoy tells the peer of its connection, which no client can write. The header `x-forwarded-client-cert` can be written
by anybody, so it is read only when the peer is a trusted hop, and only as far as trusted hops wrote it: from its right
end, where each hop adds what it saw, to the first certificate that is none of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extauthz.domain.claimed import PayerRule
from extauthz.domain.credentials import AmbiguousCredential
from extauthz.domain.templates import Template

XFCC_HEADER = "x-forwarded-client-cert"
XFCC_BYTES_MAX = 16 * 1024
PRINCIPAL_BYTES_MAX = 2048

# The names of a certificate in the order in which Envoy chooses one as the peer's.
_NAMES = ("uri", "dns", "subject")

_UNREADABLE = AmbiguousCredential(f"The header `{XFCC_HEADER}` cannot be read.")


@dataclass(frozen=True, slots=True)
class Peers:
    """Who is who by certificate, and which peers are `hops` that hand other certificates on.

    With `unlisted`, payers that are not listed pay by what `default` has.
    """

    rules: tuple[PayerRule, ...]
    hops: tuple[Template, ...] = ()
    unlisted: bool = False


def certificate_of(
    peer: str | None, headers: Mapping[str, tuple[str, ...]], peers: Peers
) -> str | AmbiguousCredential | None:
    """Give the name in the certificate of whoever asks, None when there is none. `peer` is what Envoy tells."""
    if peer is None or len(peer) > PRINCIPAL_BYTES_MAX:
        return None
    if not _is_hop(peer, peers.hops):
        return peer
    forwarded = ",".join(headers.get(XFCC_HEADER, ()))
    if len(forwarded) > XFCC_BYTES_MAX:
        return _UNREADABLE
    try:
        elements = [*_elements(forwarded)] if forwarded.strip() else []
    except ValueError:
        return _UNREADABLE
    for element in reversed(elements):
        name = next((element[name] for name in _NAMES if name in element), None)
        if name is None or not _is_hop(name, peers.hops):
            return name
    return None


def _is_hop(name: str, hops: Sequence[Template]) -> bool:
    return any(hop.read(name) is not None for hop in hops)


def _elements(header: str) -> Iterator[dict[str, str]]:
    """Read the certificates of a header. Raises ValueError when it is none."""
    for element in _divided(header, ","):
        found: dict[str, str] = {}
        for pair in _divided(element, ";"):
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(pair)
            found.setdefault(name.strip().lower(), _unquoted(value.strip()))  # the first name of a kind is the peer's
        yield found


def _divided(text: str, divider: str) -> Iterator[str]:
    """Divide a text where the divider stands outside of quotes. Raises ValueError for quotes that do not end."""
    begin, quoted, escaped = 0, False, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == divider and not quoted:
            yield text[begin:index]
            begin = index + 1
    if quoted:
        raise ValueError(text)
    yield text[begin:]


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    if len(value) == 1 or not value.endswith('"'):
        raise ValueError(value)
    return value[1:-1].replace('\\"', '"')
