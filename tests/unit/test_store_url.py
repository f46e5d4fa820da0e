"""Where the books are kept: every form of the store's URL, every mistake in one, and no secret in any text."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.domain.address import Address
from extauthz.ledger.url import Login, StoreUrl, TlsFiles, Topology, parse_store_url

STANDALONE, SENTINEL, CLUSTER = Topology.STANDALONE, Topology.SENTINEL, Topology.CLUSTER
A, B, C = Address("a", 6379), Address("b", 7000), Address("c", 6379)
SENTINELS = (Address("a", 26379), Address("b", 7000))

SECRET = "hu$h"


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        pytest.param("redis://a", StoreUrl(STANDALONE, (A,)), "redis://a:6379", id="one server"),
        pytest.param("redis://b:7000/", StoreUrl(STANDALONE, (B,)), "redis://b:7000", id="port and slash"),
        pytest.param("redis://a/3", StoreUrl(STANDALONE, (A,), database=3), "redis://a:6379/3", id="database"),
        pytest.param("REDIS://a", StoreUrl(STANDALONE, (A,)), "redis://a:6379", id="capitals"),
        pytest.param(" redis://a\n", StoreUrl(STANDALONE, (A,)), "redis://a:6379", id="out of a file"),
        pytest.param(
            "redis://my_redis-0.svc.cluster.local.:7000",
            StoreUrl(STANDALONE, (Address("my_redis-0.svc.cluster.local.", 7000),)),
            "redis://my_redis-0.svc.cluster.local.:7000",
            id="a name of Kubernetes",
        ),
        pytest.param(
            "redis://[::1]",
            StoreUrl(STANDALONE, (Address("::1", 6379),)),
            "redis://[::1]:6379",
            id="IPv6",
        ),
        pytest.param(
            "redis://u:p@[fe80::1%eth0]:7000/1",
            StoreUrl(STANDALONE, (Address("fe80::1%eth0", 7000),), Login("u", "p"), database=1),
            "redis://[fe80::1%eth0]:7000/1",
            id="IPv6 with a zone and a login",
        ),
        pytest.param("redis://:pw@a", StoreUrl(STANDALONE, (A,), Login(None, "pw")), "redis://a:6379", id="password"),
        pytest.param("redis://ana@a", StoreUrl(STANDALONE, (A,), Login("ana")), "redis://a:6379", id="user"),
        pytest.param(
            "redis://a%40b:p%3Aq%2F%3F%23%40%25@a/2",
            StoreUrl(STANDALONE, (A,), Login("a@b", "p:q/?#@%"), database=2),
            "redis://a:6379/2",
            id="user of an ACL, both percent-encoded",
        ),
        pytest.param(
            "redis://ana:p:q+@[@a",
            StoreUrl(STANDALONE, (A,), Login("ana", "p:q+@[")),
            "redis://a:6379",
            id="plain",
        ),
        pytest.param("redis://:℀@a", StoreUrl(STANDALONE, (A,), Login(None, "℀")), "redis://a:6379", id="not ASCII"),
        pytest.param(
            "redis://a?tag=gate-2.eu:1_", StoreUrl(STANDALONE, (A,), tag="gate-2.eu:1_"), "redis://a:6379", id="tag"
        ),
        pytest.param("rediss://a", StoreUrl(STANDALONE, (A,), tls=TlsFiles()), "rediss://a:6379", id="TLS"),
        pytest.param(
            "rediss://u:p@a:6379/1?ca=/tls/ca.crt&cert=/tls/my%20own.crt&key=tls.key&tag=t",
            StoreUrl(
                STANDALONE,
                (A,),
                Login("u", "p"),
                database=1,
                tls=TlsFiles(Path("/tls/ca.crt"), Path("/tls/my own.crt"), Path("tls.key")),
                tag="t",
            ),
            "rediss://a:6379/1",
            id="TLS with files",
        ),
        pytest.param(
            "redis+sentinel://a,b:7000/mymaster",
            StoreUrl(SENTINEL, SENTINELS, service="mymaster"),
            "redis+sentinel://a:26379,b:7000/mymaster",
            id="sentinels",
        ),
        pytest.param(
            "redis+sentinel://u:p@a,b:7000/my.master-1_/4?sentinel_username=s%40&sentinel_password=q%2B",
            StoreUrl(
                SENTINEL,
                SENTINELS,
                Login("u", "p"),
                database=4,
                service="my.master-1_",
                sentinel_login=Login("s@", "q+"),
            ),
            "redis+sentinel://a:26379,b:7000/my.master-1_",
            id="sentinels with their own login, and a database",
        ),
        pytest.param(
            "rediss+sentinel://[::1],[::2]:7000/m?ca=ca.crt",
            StoreUrl(
                SENTINEL, (Address("::1", 26379), Address("::2", 7000)), tls=TlsFiles(Path("ca.crt")), service="m"
            ),
            "rediss+sentinel://[::1]:26379,[::2]:7000/m",
            id="sentinels with TLS and IPv6",
        ),
        pytest.param(
            "redis+cluster://u:p@a,b:7000,c",
            StoreUrl(CLUSTER, (A, B, C), Login("u", "p")),
            "redis+cluster://a:6379,b:7000,c:6379",
            id="cluster",
        ),
        pytest.param(
            "rediss+cluster://a/0?tag=t",
            StoreUrl(CLUSTER, (A,), tls=TlsFiles(), tag="t"),
            "rediss+cluster://a:6379",
            id="cluster with TLS, and its only database",
        ),
    ],
)
def test_forms(text: str, url: StoreUrl, shown: str) -> None:
    """Each form is read in all its parts, and is shown with where it leads, in a form that reads the same."""
    parsed = parse_store_url(text)

    assert url == parsed
    assert (url.login.username, url.login.password) == (parsed.login.username, parsed.login.password)
    assert shown == str(parsed)
    assert url.addresses == parse_store_url(shown).addresses


NO_STORE = (
    "this is not a store: write memory, or a URL that starts with redis://, rediss://, redis+sentinel:// or "
    "redis+cluster:// (rediss+… for TLS)"
)
NO_HOST = "a host in the store's URL is not host:port; percent-encode @ : / ? # in passwords"
CUT_SHORT = "the store's URL has an @ or a # behind its hosts; percent-encode @ : / ? # in passwords"
NO_OPTION = (
    "the store's URL has an option that is not known: ca, cert, key, tag, sentinel_username, sentinel_password are; "
    "percent-encode @ : / ? # in passwords"
)
NO_TAG = "the tag in the store's URL may have up to 64 letters, digits and _ . : -"
NO_DATABASE = "the path of the store's URL is the number of a database, such as /1"
NO_SERVICE = "the store's URL must end in the primary's name at the sentinels, such as /mymaster"
NO_TLS = "ca, cert and key in the store's URL are for TLS: write rediss instead of redis"

MISTAKES = [
    pytest.param("", NO_STORE, id="nothing"),
    pytest.param("hu$h", NO_STORE, id="no URL"),
    pytest.param("http://:hu$h@a", NO_STORE, id="another protocol"),
    pytest.param("redis:a", NO_STORE, id="no slashes"),
    pytest.param("redis+sentinal://:hu$h@a/m", NO_STORE, id="a typo in the protocol"),
    pytest.param("unix:///run/redis.sock", NO_STORE, id="a socket"),
    pytest.param("redis://", NO_HOST, id="no host"),
    pytest.param("redis://:hu$h@", NO_HOST, id="a password without a host"),
    pytest.param("redis://ana:hu$h", NO_HOST, id="a login without a host"),
    pytest.param("redis://:hu$h@a:b", NO_HOST, id="no port"),
    pytest.param("redis://a:", NO_HOST, id="an empty port"),
    pytest.param("redis://a:65536", NO_HOST, id="too large a port"),
    pytest.param("redis://a:१", NO_HOST, id="a digit that is none"),
    pytest.param("redis://::1", NO_HOST, id="IPv6 without brackets"),
    pytest.param("redis://[]:1", NO_HOST, id="empty brackets"),
    pytest.param("redis://[hu$h]", NO_HOST, id="a name in brackets"),
    pytest.param("redis://a b", NO_HOST, id="a blank"),
    pytest.param("redis+cluster://a,,b", NO_HOST, id="a comma too many"),
    pytest.param("redis://:x/hu$h@a", CUT_SHORT, id="a slash in the password"),
    pytest.param("redis+sentinel://ana:1/hu$h@a/m", CUT_SHORT, id="a slash in the password, sentinels"),
    pytest.param("redis://:x?hu$h@a", CUT_SHORT, id="a question mark in the password"),
    pytest.param("redis://:x?tag=hu$h@a", CUT_SHORT, id="a password that looks like an option"),
    pytest.param("redis://:x#hu$h@a", CUT_SHORT, id="a hash in the password"),
    pytest.param("redis://:x?hu$h", NO_OPTION, id="half a URL"),
    pytest.param("redis://a?timeout=1", NO_OPTION, id="an option of somebody else's"),
    pytest.param("redis://a?tag=hu$h", NO_TAG, id="a tag with other characters"),
    pytest.param("redis://a?tag=", NO_TAG, id="an empty tag"),
    pytest.param(f"redis://a?tag={'x' * 65}", NO_TAG, id="a long tag"),
    pytest.param("redis://a/hu$h", NO_DATABASE, id="a database with a name"),
    pytest.param("redis://a/-1", NO_DATABASE, id="a negative database"),
    pytest.param("redis://a/²", NO_DATABASE, id="a database that is no digit"),
    pytest.param("redis://a/10000", NO_DATABASE, id="a database beyond all"),
    pytest.param("redis+sentinel://a/m/hu$h", NO_DATABASE, id="a primary's database with a name"),
    pytest.param("redis+sentinel://a", NO_SERVICE, id="no primary"),
    pytest.param("redis+sentinel://a/", NO_SERVICE, id="an empty primary"),
    pytest.param("redis+sentinel://a/hu$h", NO_SERVICE, id="a primary that Sentinel would not take"),
    pytest.param(
        "redis+cluster://a/1", "a Redis Cluster has database 0 only: leave the path out", id="a cluster's database"
    ),
    pytest.param(
        "redis://:hu$h@a,b",
        "redis:// names one server; for several write redis+sentinel:// or redis+cluster://",
        id="two servers",
    ),
    pytest.param("redis://:hu$h@a?ca=ca.crt", NO_TLS, id="TLS files without TLS"),
    pytest.param("redis+cluster://a?key=tls.key", NO_TLS, id="a cluster's TLS files without TLS"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES)
def test_mistakes(text: str, sentence: str) -> None:
    """Each mistake has its sentence, which says what to write and quotes nothing: any part may be of a password."""
    with pytest.raises(ValueError, match=r".") as refused:
        parse_store_url(text)

    assert sentence == str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"redis://user-{SECRET}:{SECRET}@a",
        f"rediss://user-{SECRET}:{SECRET}@a/1?ca=ca.crt",
        f"redis+sentinel://:{SECRET}@a/m?sentinel_username=s{SECRET}&sentinel_password={SECRET}",
        f"redis+cluster://{SECRET}@a,b",
    ],
)
def test_nothing_prints_a_login(text: str) -> None:
    """Neither `str` nor `repr` of a store, or of its parts, tells a user or a password; both are in there."""
    url = parse_store_url(text)

    assert SECRET in f"{url.login.username}{url.login.password}"
    assert SECRET not in f"{url} {url!r} {url.login} {url.login!r} {url.sentinel_login!r}"


# No sentence and no other part of the URLs below has one of these two letters in it.
SECRET_LETTERS = "QZ"
SECRETS = st.text(SECRET_LETTERS + "1%.,:;@/?#&=[]+ \n\x00…℀", min_size=1, max_size=12)
SCHEMES = st.sampled_from(["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "reddis"])
BEHIND = st.sampled_from(["", "/1", "/mymaster", "/mymaster/2", "?tag=t", "/m?sentinel_password=x", "?ca=c"])


def shown_of(text: str) -> str:
    """Give all that is ever shown of a store's URL: the store in all its forms, or the mistake."""
    try:
        url = parse_store_url(text)
    except ValueError as error:
        return f"{error} {error!r}"
    return f"{url} {url!r}"


@given(SECRETS, BEHIND)
def test_an_encoded_secret_is_read_and_never_told(secret: str, behind: str) -> None:
    """Whatever stands in a percent-encoded login arrives as it is; what is wrong elsewhere does not show it."""
    encoded = quote(secret, safe="")
    login = parse_store_url(f"redis://{encoded}:{encoded}@a").login

    assert (secret, secret) == (login.username, login.password)
    assert set(SECRET_LETTERS).isdisjoint(shown_of(f"redis+sentinel://{encoded}:{encoded}@a,b:7000{behind}"))


@given(SCHEMES, SECRETS, BEHIND)
@example("redis", "1?Q", "")
@example("redis", "1#Q", "")
@example("redis", "1/Q", "")
@example("redis", "Q℀", "")
@example("redis", "1[Q", "")
@example("redis+sentinel", "1/Q", "/m")
@example("redis+sentinel", "Q/1", "/m")
def test_a_secret_that_is_not_encoded_is_never_told_either(scheme: str, secret: str, behind: str) -> None:
    """A password that falls apart at its own punctuation leaves no part of it in a text."""
    assert set(SECRET_LETTERS).isdisjoint(shown_of(f"{scheme}://ana:{secret}@a,b:7000{behind}"))


@given(st.one_of(st.text(), st.from_regex(r"rediss?(\+sentinel|\+cluster)?://[\x00-\x7f]{0,30}", fullmatch=True)))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever stands there, it is read or it is a ValueError."""
    with suppress(ValueError):
        parse_store_url(text)
