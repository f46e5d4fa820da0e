"""The kinds of objects that operators bring, as an API server wants to be told of them.

They let everything in that has the right name: whether its fields are right is told by tests/support/meshcheck, which
has the operators' own types. Nothing of the operators is copied here.
"""

from __future__ import annotations

from typing import NamedTuple

import yaml


class Resource(NamedTuple):
    """A kind, all of which are in namespaces."""

    group: str
    version: str
    kind: str
    plural: str


RESOURCES = (
    Resource("gateway.envoyproxy.io", "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies"),
    Resource("gateway.envoyproxy.io", "v1alpha1", "EnvoyExtensionPolicy", "envoyextensionpolicies"),
    Resource("gateway.envoyproxy.io", "v1alpha1", "EnvoyPatchPolicy", "envoypatchpolicies"),
    Resource("gateway.envoyproxy.io", "v1alpha1", "EnvoyProxy", "envoyproxies"),
    Resource("gateway.envoyproxy.io", "v1alpha1", "SecurityPolicy", "securitypolicies"),
    Resource("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants"),
    Resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    Resource("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    Resource("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    Resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    Resource("networking.istio.io", "v1", "DestinationRule", "destinationrules"),
    Resource("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"),
    Resource("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies"),
    Resource("security.istio.io", "v1", "PeerAuthentication", "peerauthentications"),
)


def definitions() -> str:
    """Write the CustomResourceDefinitions of all of them."""
    return yaml.safe_dump_all(_definition(each) for each in RESOURCES)


def _definition(resource: Resource) -> dict[str, object]:
    name = f"{resource.plural}.{resource.group}"
    names = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": resource.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            # Groups of Kubernetes' own are only taken from those who were asked.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {"group": resource.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
