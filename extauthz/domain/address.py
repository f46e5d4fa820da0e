"""Where something listens."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a port."""

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host needs no resolver."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def loopback(self) -> bool:
        """Whether only this machine (or pod) can reach it."""
        return ipaddress.ip_address(self.host).is_loopback if self.is_ip else self.host == "localhost"

    @property
    def from_here(self) -> Address:
        """The address under which this machine reaches what listens there; 0.0.0.0 is no place to connect to."""
        if self.is_ip and ipaddress.ip_address(self.host).is_unspecified:
            return Address("::1" if ":" in self.host else "127.0.0.1", self.port)
        return self

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `host:port` or `[ipv6]:port`. Raises ValueError with what to write instead."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isascii() or not port.isdecimal() or int(port[:6]) > PORT_MAX:
        raise ValueError(f"`{text}` is not an address: write host:port, such as 127.0.0.1:9191 or [::1]:9191")
    return Address(bare, int(port))
