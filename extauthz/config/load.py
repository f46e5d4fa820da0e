"""Loading: a file in, and those that it names; one frozen snapshot out, or all of their mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from extauthz.config.accounts import KeyList, accounts_of, check_defaults, check_keys, check_references, global_fields
from extauthz.config.credentials import identities
from extauthz.config.directories import DirectoryPlace, directory_place, read_for_directory
from extauthz.config.estimates import UnknownPrice, UnknownPriceMode
from extauthz.config.explain import did_you_mean, validated
from extauthz.config.key_sets import read_key_sets
from extauthz.config.keys_file import read_keys
from extauthz.config.litellm import (
    GENERAL,
    LITELLM,
    MODEL_LIST,
    OWN_SECTION,
    PROVIDER_BUDGETS,
    ROUTER,
    LitellmReader,
    ignored,
)
from extauthz.config.litellm_file import LitellmFile, find_litellm
from extauthz.config.litellm_groups import access_groups
from extauthz.config.litellm_money import is_told, told
from extauthz.config.litellm_settings import GeneralSettings, LitellmSettings, RouterSettings
from extauthz.config.model import ExtauthzSection, Service, Settings
from extauthz.config.snapshot import Snapshot
from extauthz.config.source import Entries, Mistakes, Node, child, plain, read, resolved
from extauthz.config.sources import Sources, Stamp
from extauthz.domain.directory import Directory
from extauthz.domain.model_names import is_pattern
from extauthz.domain.prices import Prices
from extauthz.domain.routes import RouteClass, classify
from extauthz.errors import ConfigError, Mistake
from extauthz.pricing.catalog import Catalog
from extauthz.pricing.offers import CatalogSource
from extauthz.pricing.price_list import find_listed

# How alike an unknown name is to one that matters, when it is taken for a slip and not for something of LiteLLM's.
SLIP_LIKENESS = 0.8

# Names that only extauthz knows, by the section that they stand in: LiteLLM would say nothing of a slip in one.
OWN_NAMES: Mapping[str, str] = {"": OWN_SECTION, f"{GENERAL}.": "budget_exceeded_models_policy"}

NAMED_IN_A_NOTICE_MAX = 50

# How often files are read again because one of them changed meanwhile.
READS_MAX = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading a configuration, and how each of its files was."""

    outcome: Snapshot | tuple[Mistake, ...]
    stamps: Mapping[Path, Stamp]


def load(path: Path, environ: Mapping[str, str]) -> Snapshot:
    """Read a configuration file, with the environment that its `os.environ/NAME` refer to.

    Raises ConfigError with every mistake.
    """
    outcome = read_config(path, environ).outcome
    if isinstance(outcome, Snapshot):
        return outcome
    raise ConfigError(outcome)


def read_config(path: Path, environ: Mapping[str, str]) -> Reading:
    """Read a configuration file as `load` does, and tell mistakes instead of raising them.

    No snapshot is made of two states of its files, and none of a file that somebody was still writing to.
    """
    for _ in range(READS_MAX):
        sources = Sources(environ)
        outcome = _outcome(path, sources)
        if not sources.changed():
            return Reading(outcome, sources.stamps)
    mistake = Mistake(path, 1, "the files change faster than they can be read: put new ones in their place, by mv")
    return Reading((mistake,), sources.stamps)


def _outcome(path: Path, sources: Sources) -> Snapshot | tuple[Mistake, ...]:
    mistakes = Mistakes(path)
    text = sources.text(path, mistakes)
    root = read(text, mistakes, strict=OWN_SECTION.__eq__) if not mistakes else Entries(line=1)
    own = resolved(child(root, OWN_SECTION) or Entries(line=1), sources.environ, mistakes)
    theirs = find_litellm(LitellmFile(root, mistakes), own, sources)
    reader = LitellmReader(theirs.root, sources.environ, theirs.mistakes)
    more_keys = read_keys(path, own, sources)
    key_sets = read_key_sets(path, own, sources)
    section = validated(ExtauthzSection, own, (OWN_SECTION,), mistakes)
    general = validated(GeneralSettings, reader.sections[GENERAL], (GENERAL,), theirs.mistakes)
    litellm = validated(LitellmSettings, reader.sections[LITELLM], (LITELLM,), theirs.mistakes)
    router = validated(RouterSettings, reader.sections[ROUTER], (ROUTER,), theirs.mistakes)
    check_references(own, mistakes)
    check_keys([KeyList(own, (OWN_SECTION,), mistakes, reader.sections[GENERAL]), *more_keys.lists])
    _check_slips(root, mistakes)
    _check_slips(theirs.root, theirs.mistakes)
    mistakes_before = len(theirs.mistakes)
    catalog = _catalog(reader, _unknown_price(section, litellm))
    if len(theirs.mistakes) == mistakes_before:
        _check_upstream_auth(own, catalog, mistakes)
    if section is not None and section.shard_count > 1:
        _check_no_global_budget(reader, litellm, router, theirs.mistakes)
    place = DirectoryPlace()
    if section is not None:
        check_defaults(section, own, mistakes)
        place = directory_place(section, own, theirs.root, sources.environ, mistakes)
    noted = (*mistakes.all(), *theirs.mistakes.all(), *more_keys.mistakes, *key_sets.mistakes)
    found = tuple(dict.fromkeys(noted))
    if found or section is None or general is None or litellm is None or router is None:
        return found
    settings = _settings(section, general, litellm).model_copy(
        update={"directory_url": place.url, "end_user_budget": place.end_user_budget}
    )
    directory = Directory(
        accounts_of(
            section,
            general,
            global_fields(section, litellm, router),
            more_keys.fields,
            settings,
            access_groups(theirs.root),
        )
    )
    return Snapshot(
        settings,
        catalog,
        directory,
        identities(section.jwt, section.mtls, section.trusted_headers),
        {issuer.issuer: keys for place, issuer in enumerate(section.jwt) if (keys := key_sets.by_place.get(place))},
        (
            *_notices(theirs.root, catalog, settings),
            *_uncounted(directory, catalog),
            *_unheard(general),
            *theirs.mistakes.remarks,
        ),
        digest=sources.digest,
        stamps=sources.stamps,
        sections=_sections(Entries(1, {**theirs.root.entries, **root.entries, **theirs.root.entries}), more_keys.lists)
        | ({f"{OWN_SECTION}.jwks_file": key_sets.digest} if key_sets.digest else {}),
    )


def _unknown_price(section: ExtauthzSection | None, litellm: LitellmSettings | None) -> UnknownPrice:
    """Give what is paid without a price: by our section, or else by LiteLLM's."""
    if section is not None and "unknown_price" in section.model_fields_set:
        return section.unknown_price
    denied = litellm is not None and litellm.block_requests_for_models_without_pricing
    return UnknownPrice(mode=UnknownPriceMode.DENY if denied else UnknownPriceMode.ESTIMATE)


def _catalog(reader: LitellmReader, unknown_price: UnknownPrice) -> Catalog:
    prices = Prices(
        input=unknown_price.input_cost_per_token,
        output=unknown_price.output_cost_per_token,
        per_image=unknown_price.cost_per_image,
        per_second=unknown_price.cost_per_second,
        per_character=unknown_price.cost_per_character,
        per_query=unknown_price.cost_per_query,
        per_search=unknown_price.cost_per_query,
    )
    source = CatalogSource(reader.offers(), reader.aliases(), reader.fallbacks(), prices)
    return Catalog(source, find_listed)


def _check_upstream_auth(own: Node, catalog: Catalog, mistakes: Mistakes) -> None:
    """Note rules for models that are not there: with a slip in the name, an upstream would get the client's key."""
    models = child(child(own, "upstream_auth") or own, "models")
    if isinstance(models, Entries):
        for name, entry in models.entries.items():
            if not is_pattern(name) and catalog.find(name) is None:
                hint = did_you_mean(name, catalog.listed())
                where = f"{OWN_SECTION}.upstream_auth.models"
                mistakes.add(entry.line, f"{where}: `{name}` is not in {MODEL_LIST}; {hint}")


def _check_no_global_budget(
    reader: LitellmReader, litellm: LitellmSettings | None, router: RouterSettings | None, mistakes: Mistakes
) -> None:
    """Note budgets of all together, which books in shards cannot keep."""
    for section, name, stands in (
        (LITELLM, "max_budget", litellm is not None and bool(litellm.max_budget)),
        (ROUTER, PROVIDER_BUDGETS, router is not None and bool(router.provider_budget_config)),
    ):
        node = child(reader.sections[section], name)
        if stands and node is not None:
            mistakes.add(node.line, f"{section}.{name}: there is no budget of all with shard_by: organization")


def _check_slips(root: Entries, mistakes: Mistakes) -> None:
    for name in ignored(root):
        for prefix, own_name in OWN_NAMES.items():
            section, _, last = name.rpartition(".")
            if section == prefix.rstrip(".") and get_close_matches(last, [own_name], cutoff=SLIP_LIKENESS):
                entries = root if not section else child(root, section)
                if isinstance(entries, Entries):
                    mistakes.add(entries.entries[last].line, f"{name}: unknown key; did you mean `{own_name}`?")


def _settings(section: ExtauthzSection, general: GeneralSettings, litellm: LitellmSettings) -> Settings:
    values = {name: getattr(section, name) for name in Service.model_fields}
    theirs = {
        "timezone": litellm.timezone,
        "budget_reset_time": litellm.budget_reset_time,
        "budget_rollover": litellm.budget_rollover,
        "unknown_price": _unknown_price(section, litellm),
    }
    values |= {
        name: value for name, value in theirs.items() if value is not None and name not in section.model_fields_set
    }
    # Below these nothing would be paid. What is inference there anyway, such as /v1/rerank, is better known as that.
    handed_on = (f"/{endpoint.path.strip('/')}" for endpoint in general.pass_through_endpoints)
    unknown = (path for path in handed_on if classify("POST", path, {}).route_class is not RouteClass.INFERENCE)
    values["api_prefixes"] = tuple(dict.fromkeys((*section.api_prefixes, *unknown)))
    return Settings.model_construct(
        **values,
        models_policy=general.budget_exceeded_models_policy,
        user_headers=general.user_headers,
    )


def _sections(root: Entries, more_keys: Iterable[KeyList]) -> dict[str, bytes]:
    """Give every section a hash of what it says, so that two snapshots can be compared without keeping the file."""
    nodes = {name: entry.node for name, entry in root.entries.items() if name != OWN_SECTION}
    own = child(root, OWN_SECTION)
    if isinstance(own, Entries):
        nodes |= {f"{OWN_SECTION}.{name}": entry.node for name, entry in own.entries.items()}
    for keys in more_keys:
        nodes[f"{OWN_SECTION}.keys_file"] = keys.section
    return {name: sha256(repr(plain(node)).encode()).digest() for name, node in nodes.items()}


def _notices(root: Entries, catalog: Catalog, settings: Settings) -> tuple[str, ...]:
    notices = []
    read = read_for_directory(settings)
    if names := tuple(name for name in ignored(root) if not is_told(name) and name not in read):
        notices.append(f"settings that mean nothing here: {_listing(names)}")
    notices += told(root)
    if not catalog.listed():
        notices.append(f"{MODEL_LIST} names no model: only patterns can be asked for, if there are any")
    if names := catalog.astray():
        notices.append(f"aliases and fallbacks lead to models that are not in {MODEL_LIST}: {_listing(names)}")
    if names := catalog.unpriced():
        notices.append(
            f"models without a price, neither in {MODEL_LIST} nor in the price list: {_listing(names)}; "
            f"{_without_price(settings.unknown_price)}. Write both prices, as 0 if they are free"
        )
    if prices := catalog.unsettled():
        names = tuple(f"{model} ({price})" for model, price in prices)
        notices.append(f"prices by which nothing is booked, for no answer shows what they count: {_listing(names)}")
    if settings.shard_count > 1:
        notices.append("with shard_by, budgets of users and end users are per organization")
    return tuple(notices)


def _without_price(rule: UnknownPrice) -> str:
    if rule.mode is UnknownPriceMode.DENY:
        return f"they are refused ({OWN_SECTION}.unknown_price)"
    return (
        f"their tokens cost {rule.input_cost_per_token:f} and {rule.output_cost_per_token:f} USD "
        f"({OWN_SECTION}.unknown_price)"
    )


def _uncounted(directory: Directory, catalog: Catalog) -> Iterator[str]:
    """Tell of budgets of single models and providers that no request counts on: there may be a slip in the name."""
    found = {budget.only for scope in directory.budgeted() for budget in directory.budgets_on(scope)}
    names = sorted(only.name for only in found if only is not None and not catalog.targets.can_count(only))
    if names:
        yield f"budgets of models and providers that {MODEL_LIST} does not have limit nothing: {_listing(tuple(names))}"


def _unheard(general: GeneralSettings) -> Iterator[str]:
    """Tell of headers by which LiteLLM lets any client say which user pays."""
    headers = [header.header_name for header in general.user_header_mappings if not header.names_end_user]
    if headers:
        yield f"{GENERAL}.user_header_mappings: headers of internal users name nobody here: {', '.join(headers)}"


def _listing(names: tuple[str, ...]) -> str:
    more = len(names) - NAMED_IN_A_NOTICE_MAX
    return ", ".join(names[:NAMED_IN_A_NOTICE_MAX]) + (f" and {more} more" if more > 0 else "")
