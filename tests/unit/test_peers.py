"""Whose certificate a request has: the peer's own, or the one that a trusted hop saw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.domain.credentials import AmbiguousCredential
from extauthz.domain.peers import XFCC_BYTES_MAX, XFCC_HEADER, Peers, certificate_of
from extauthz.domain.templates import Template

GATEWAY = "spiffe://mesh/ns/edge/sa/gateway"
ANA, BEN = "spiffe://mesh/ns/a/sa/ana", "spiffe://mesh/ns/b/sa/ben"
PEERS = Peers((), (Template.parse("spiffe://mesh/ns/edge/sa/{name}"),))
BY_GATEWAY = f"By={ANA};Hash=ab;URI={GATEWAY}"


@pytest.mark.parametrize(
    ("peer", "xfcc", "expected"),
    [
        pytest.param(None, None, None, id="no certificate"),
        pytest.param(None, f"URI={ANA}", None, id="a header of anybody's"),
        pytest.param(ANA, None, ANA, id="the peer's own"),
        pytest.param(ANA, f"URI={BEN}", ANA, id="the peer is no hop"),
        pytest.param(GATEWAY, None, None, id="a hop without a client's"),
        pytest.param(GATEWAY, f"Hash=ab;URI={ANA}", ANA, id="what a hop saw"),
        pytest.param(GATEWAY, f"URI={BEN},Hash=ab;URI={ANA}", ANA, id="the client wrote something before it"),
        pytest.param(GATEWAY, f"URI={ANA},{BY_GATEWAY}", ANA, id="this Envoy added the hop's own"),
        pytest.param(GATEWAY, f"URI={BEN},URI={ANA},URI={GATEWAY}2,{BY_GATEWAY}", ANA, id="two hops"),
        pytest.param(GATEWAY, BY_GATEWAY, None, id="the hop itself asks"),
        pytest.param(GATEWAY, 'Hash=ab;Subject="CN=ana,O=\\"x;y\\""', 'CN=ana,O="x;y"', id="a subject in quotes"),
        pytest.param(GATEWAY, f"DNS=a.example;URI={ANA};URI={BEN};Subject=CN", ANA, id="the first URI goes before"),
        pytest.param(GATEWAY, "dns=a.example;dns=b.example", "a.example", id="DNS"),
        pytest.param(GATEWAY, f"URI={ANA},Hash=ab", None, id="a certificate without a name"),
    ],
)
def test_whose_certificate(peer: str | None, xfcc: str | None, expected: str | None) -> None:
    """Only trusted hops are believed, and only what they wrote themselves."""
    headers = {} if xfcc is None else {XFCC_HEADER: (xfcc,)}

    assert expected == certificate_of(peer, headers, PEERS)


def test_a_header_in_several_lines() -> None:
    """Lines of one header are read as one, the last of them first."""
    assert ANA == certificate_of(GATEWAY, {XFCC_HEADER: (f"URI={BEN}", f"URI={ANA}")}, PEERS)


@pytest.mark.parametrize(
    "xfcc", ["nonsense", 'Subject="CN', f'Subject="a",{BY_GATEWAY},URI="', "URI=a;;", "x" * (XFCC_BYTES_MAX + 1)]
)
def test_what_cannot_be_read(xfcc: str) -> None:
    """A header that is none is refused: it might name anybody."""
    assert isinstance(certificate_of(GATEWAY, {XFCC_HEADER: (xfcc,)}, PEERS), AmbiguousCredential)


@given(st.none() | st.sampled_from([GATEWAY, ANA]) | st.text(), st.text(alphabet='URIS=;,"\\ab') | st.text())
def test_every_header_is_read(peer: str | None, xfcc: str) -> None:
    """No header is beyond reading, and none makes a peer that is no hop somebody else."""
    found = certificate_of(peer, {XFCC_HEADER: (xfcc,)}, PEERS)

    assert peer in (GATEWAY, found) or (peer is not None and PEERS.hops[0].read(peer) is not None)
