"""Where the books are kept, as one URL.

    redis://[user:password@]host:6379[/database]                   one server; rediss:// speaks TLS
    redis+sentinel://[user:password@]host:26379,host:26379/name    whichever server the sentinels call the primary
    redis+cluster://[user:password@]host:6379,host:6379            the node that has the slot; rediss+… speaks TLS

Options stand behind `?`: `ca`, `cert`, `key` (paths, for TLS), `tag` (another name than `extauthz` for the keys, where
several gates share a server), `sentinel_username` and `sentinel_password`.

No sentence about a mistake quotes the URL: with one character that is not percent-encoded, any part of it may be a
part of its password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from extauthz.domain.address import Address, parse_address

TAG = "extauthz"
_TAG = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\]")
# What Sentinel takes for the name of a primary.
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")
_OPTIONS = ("ca", "cert", "key", "tag", "sentinel_username", "sentinel_password")

_ENCODE = "percent-encode @ : / ? # in passwords"


class Topology(StrEnum):
    """How the server that takes writes is found."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": Topology.STANDALONE,
    "redis+sentinel": Topology.SENTINEL,
    "redis+cluster": Topology.CLUSTER,
}
_PORTS = {Topology.STANDALONE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}


@dataclass(frozen=True, slots=True)
class Login:
    """A user (None for the default one) and a password, neither of which gets into a text."""

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the CA to trust (None for the system's), and a certificate of our own."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store outside of this process. `service` is the primary's name at the sentinels, `tls` None without TLS."""

    topology: Topology
    addresses: tuple[Address, ...]
    login: Login = Login()
    database: int = 0
    tls: TlsFiles | None = None
    service: str = ""
    sentinel_login: Login = Login()
    tag: str = TAG

    def __str__(self) -> str:
        """Write it without its secrets."""
        scheme = {topology: scheme for scheme, topology in _SCHEMES.items()}[self.topology]
        if self.tls is not None:
            scheme = scheme.replace("redis", "rediss", 1)
        place = self.service or self.database or ""
        return f"{scheme}://{','.join(map(str, self.addresses))}{'/' if place else ''}{place}"


def parse_store_url(text: str) -> StoreUrl:
    """Read a store's URL. Raises ValueError, without the URL's secrets, with what to write instead."""
    # Not urlsplit: its errors quote the URL, and it takes what stands behind a # for no part of it.
    before, _, query = text.strip().partition("?")
    protocol, _, rest = before.partition("://")
    netloc, _, path = rest.partition("/")
    scheme = protocol.lower().replace("rediss", "redis", 1)
    if scheme not in _SCHEMES:
        raise ValueError(
            "this is not a store: write memory, or a URL that starts with redis://, rediss://, "
            "redis+sentinel:// or redis+cluster:// (rediss+… for TLS)"
        )
    topology = _SCHEMES[scheme]
    if "#" in text or "@" in path or "@" in query:
        raise ValueError(f"the store's URL has an @ or a # behind its hosts; {_ENCODE}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(_OPTIONS):
        raise ValueError(f"the store's URL has an option that is not known: {', '.join(_OPTIONS)} are; {_ENCODE}")
    credentials, _, hosts = netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, database = _place(topology, unquote(path))
    tag = options.get("tag", TAG)
    if not _TAG.fullmatch(tag):
        raise ValueError("the tag in the store's URL may have up to 64 letters, digits and _ . : -")
    files = TlsFiles(*(Path(options[name]) if name in options else None for name in ("ca", "cert", "key")))
    tls = files if protocol.lower().startswith("rediss") else None
    if tls is None and files != TlsFiles():
        raise ValueError("ca, cert and key in the store's URL are for TLS: write rediss instead of redis")
    return StoreUrl(
        topology=topology,
        addresses=_addresses(hosts, topology),
        login=Login(unquote(username) or None, unquote(password) or None),
        database=database,
        tls=tls,
        service=service,
        sentinel_login=Login(options.get("sentinel_username"), options.get("sentinel_password")),
        tag=tag,
    )


def _addresses(hosts: str, topology: Topology) -> tuple[Address, ...]:
    addresses = []
    for host in hosts.split(","):
        with_port = host if re.search(r":\d*$", host) and not host.endswith("]") else f"{host}:{_PORTS[topology]}"
        try:
            address = parse_address(with_port)
        except ValueError:
            address = None
        if address is None or not _HOST.fullmatch(with_port.rpartition(":")[0]):
            raise ValueError(f"a host in the store's URL is not host:port; {_ENCODE}")
        addresses.append(address)
    if topology is Topology.STANDALONE and len(addresses) > 1:
        raise ValueError("redis:// names one server; for several write redis+sentinel:// or redis+cluster://")
    return tuple(addresses)


def _place(topology: Topology, path: str) -> tuple[str, int]:
    """Read what stands behind the hosts: the sentinels' name of the primary, or the number of a database."""
    match topology:
        case Topology.SENTINEL:
            service, _, database = path.partition("/")
            if not _SERVICE.fullmatch(service):
                raise ValueError("the store's URL must end in the primary's name at the sentinels, such as /mymaster")
        case Topology.STANDALONE:
            service, database = "", path
        case Topology.CLUSTER:
            service, database = "", path
            if path not in ("", "0"):
                raise ValueError("a Redis Cluster has database 0 only: leave the path out")
    if database and not (database.isascii() and database.isdigit() and len(database) <= 4):  # noqa: PLR2004
        raise ValueError("the path of the store's URL is the number of a database, such as /1")
    return service, int(database or 0)
