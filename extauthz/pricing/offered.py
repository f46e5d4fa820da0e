"""The models of a catalog as a model list shows them."""

from __future__ import annotations

from collections.abc import Iterable

from extauthz.domain.model_lists import OfferedDeployment, OfferedModel
from extauthz.domain.model_names import captured, filled
from extauthz.pricing.catalog import Catalog


def offered(catalog: Catalog, names: Iterable[str]) -> tuple[OfferedModel, ...]:
    """Describe models by their names; those that the catalog does not have are left out."""
    found = (_offered(catalog, name) for name in names)
    return tuple(model for model in found if model is not None)


def _offered(catalog: Catalog, name: str) -> OfferedModel | None:
    model, entry = catalog.find(name), catalog.entry(name)
    if model is None or entry is None:
        return None
    offers = [offer for offer in catalog.source.offers if offer.name == entry]
    texts = captured(entry, model.name) or ()
    deployments = tuple(
        OfferedDeployment(filled(offer.upstream_model, texts), offer.served_by, deployment.prices)
        for offer, deployment in zip(offers, model.deployments, strict=True)
    )
    return OfferedModel(name, deployments, model.context_tokens, model.output_tokens_max)
