"""Where something listens, and where it is reached."""

import pytest

from extauthz.domain.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "loopback", "from_here"),
    [
        ("127.0.0.1:9191", True, "127.0.0.1:9191"),
        ("[::1]:9191", True, "[::1]:9191"),
        ("localhost:9191", True, "localhost:9191"),
        ("0.0.0.0:9191", False, "127.0.0.1:9191"),
        ("[::]:9191", False, "[::1]:9191"),
        ("10.1.2.3:9191", False, "10.1.2.3:9191"),
        ("extauthz.llm.svc:9191", False, "extauthz.llm.svc:9191"),
    ],
)
def test_addresses(text: str, loopback: bool, from_here: str) -> None:  # noqa: FBT001 - a column
    """An address is written as it was read, and an unspecified one is reached on this machine's loopback."""
    address = parse_address(text)

    assert text == str(address)
    assert loopback is address.loopback
    assert from_here == str(address.from_here)


@pytest.mark.parametrize("text", ["", "9191", ":9191", "host:", "host:http", "host:65536", "host:²"])
def test_what_is_no_address(text: str) -> None:
    """The sentence says how to write one."""
    with pytest.raises(ValueError, match="write host:port"):
        parse_address(text)


def test_a_host_that_is_an_ip_needs_no_resolver() -> None:
    """Envoy is told whether to resolve a name."""
    assert Address("10.1.2.3", 1).is_ip
    assert not Address("llm", 1).is_ip
