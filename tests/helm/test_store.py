"""The store: how redis.* becomes the URL that the program reads, and where its password stands meanwhile."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import yaml

from extauthz.ledger.url import parse_store_url
from tests.support.chart import CHART, REDIS, Json, Rendered, needs_helm, render

pytestmark = needs_helm

PASSWORDS = {"EXTAUTHZ_REDIS_PASSWORD": "p%40ss", "EXTAUTHZ_REDIS_SENTINEL_PASSWORD": "other"}


def store(chart: Rendered) -> str:
    """Give the URL as the container sees it: Kubernetes puts variables in that stand above it."""
    url = ""
    known: dict[str, str] = {}
    for name, each in chart.env.items():
        value = each.get("value", PASSWORDS.get(name, ""))
        known[name] = _expanded(value, known)
        if name == "EXTAUTHZ_STORE":
            url = known[name]
    return url


def test_sentinels_with_everything() -> None:
    """User, both passwords, CA, certificate and tag are in the URL, which the program understands."""
    chart = render(files=[CHART / "ci/redis-sentinel-values.yaml"])

    folder = "/etc/extauthz/redis-tls"
    assert (
        "rediss+sentinel://gate:p%40ss@sentinel-0.redis:26379,sentinel-1.redis:26380/mymaster"
        f"?ca={folder}/ca.pem&cert={folder}/client.pem&key={folder}/client-key.pem&tag=team-a"
        "&sentinel_username=sentinel&sentinel_password=other"
    ) == store(chart)
    parse_store_url(store(chart))
    keys = {name: each["valueFrom"]["secretKeyRef"] for name, each in chart.env.items() if "valueFrom" in each}
    assert {
        "EXTAUTHZ_REDIS_PASSWORD": {"name": "redis-passwords", "key": "redis-password"},
        "EXTAUTHZ_REDIS_SENTINEL_PASSWORD": {"name": "redis-passwords", "key": "sentinel-password"},
    } == keys
    assert {"name": "redis-tls", "secret": {"secretName": "redis-tls"}} in chart.pod["spec"]["volumes"]


@pytest.mark.parametrize(
    ("redis", "url"),
    [
        ({"url": "redis://h:6379/2"}, "redis://h:6379/2"),
        ({"url": "redis://h", "auth": {"existingSecret": "s"}}, "redis://:p%40ss@h"),
        (
            {"url": "redis+cluster://a:1,b:2", "auth": {"existingSecret": "s", "username": "a b"}},
            "redis+cluster://a%20b:p%40ss@a:1,b:2",
        ),
        (
            {
                "url": "redis+sentinel://h:1/m",
                "auth": {"existingSecret": "s", "sentinelUsername": "a @", "sentinelPasswordKey": "k"},
            },
            "redis+sentinel://:p%40ss@h:1/m?sentinel_username=a%20%40&sentinel_password=other",
        ),
        ({"url": "rediss://h?ca=/own.pem", "tag": "t"}, "rediss://h?ca=/own.pem&tag=t"),
        ({"dev": {"enabled": True}}, "redis://gate-extauthz-redis.llm-budget.svc.cluster.local:6379"),
    ],
)
def test_urls(redis: Json, url: str) -> None:
    """Each way to name a store makes a URL that the program understands."""
    made = store(render({"redis": redis}))

    assert url == made
    parse_store_url(made)


def test_passwords_are_nowhere_but_in_secrets() -> None:
    """A password in redis.url goes into a Secret; a change of it makes new pods."""
    url = "redis://gate:hunter2@redis:6379"
    chart = render({"redis": {"url": url}})

    assert url == chart.one("Secret", "-store")["stringData"]["url"]
    others = [each for each in chart.objects if each["kind"] != "Secret"]
    assert "hunter2" not in yaml.safe_dump(others)
    assert {"name": "gate-extauthz-store", "key": "url"} == chart.env["EXTAUTHZ_STORE"]["valueFrom"]["secretKeyRef"]
    assert chart.pod != render({"redis": {"url": url.replace("hunter2", "hunter3")}}).pod


def test_a_whole_url_in_a_secret() -> None:
    """redis.existingSecret is the URL as it is."""
    chart = render(files=[CHART / "ci/redis-secret-values.yaml"])

    assert {"name": "books", "key": "redis-url"} == chart.env["EXTAUTHZ_STORE"]["valueFrom"]["secretKeyRef"]
    assert not [each for each in chart.of("Secret") if each["metadata"]["name"].startswith("gate")]


def test_without_one_books_are_in_memory() -> None:
    """A trial has no variable, and says memory."""
    chart = render({"replicas": 1})

    assert "memory" == chart.config["extauthz"]["store"]
    assert {} == chart.env


def test_the_redis_for_trials_is_what_the_program_starts_on() -> None:
    """It throws nothing away when it is full, writes nothing to its disk, and nobody but the gate reaches it."""
    chart = render(files=[CHART / "ci/redis-dev-values.yaml"])
    (container,) = chart.one("Deployment", "-redis")["spec"]["template"]["spec"]["containers"]

    assert ["redis-server"] == container["command"]
    assert "--maxmemory-policy noeviction" in " ".join(container["args"])
    policy = chart.one("NetworkPolicy", "-redis")["spec"]
    assert policy["podSelector"]["matchLabels"] == chart.one("Deployment", "-redis")["spec"]["selector"]["matchLabels"]
    (rule,) = policy["ingress"]
    assert chart.deployment["spec"]["selector"]["matchLabels"] == rule["from"][0]["podSelector"]["matchLabels"]
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy
    assert [{"kind": "Service", "labels": "redis"}] == [
        {"kind": each["kind"], "labels": each["metadata"]["labels"]["app.kubernetes.io/component"]}
        for each in chart.of("Service")
        if each["metadata"]["name"].endswith("-redis")
    ]


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        (REDIS, [6379]),
        ({"redis": {"url": "redis://h"}}, [6379]),
        ({"redis": {"url": "redis://a:b@h:7000/3"}}, [7000]),
        ({"redis": {"url": "redis+cluster://a:7000,b:7001"}}, [7000, 7001]),
        ({"redis": {"url": "redis+sentinel://a:26379,b:26380/mymaster"}}, [26379, 26380, 6379]),
        ({"redis": {"url": "rediss://h:6380?ca=/a:1"}}, [6380]),
        ({"redis": {"existingSecret": "s"}}, [6379, 26379]),
        ({**REDIS, "networkPolicy": {"egress": {"redisPorts": [1]}}}, [1]),
    ],
)
def test_the_way_to_it_is_open(values: Mapping[str, Json], ports: list[int]) -> None:
    """The ports of the URL are open; where it cannot be seen, the usual ones are."""
    egress = render(values).one("NetworkPolicy")["spec"]["egress"]

    assert ports == [each["port"] for each in egress[1]["ports"]]


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], found[0]), value)
