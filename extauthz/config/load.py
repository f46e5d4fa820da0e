"""Loading: one file in, one frozen snapshot out, or all of its mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from extauthz.config.accounts import accounts_of, check_keys, check_references
from extauthz.config.explain import did_you_mean, validated
from extauthz.config.litellm import GENERAL, LITELLM, MODEL_LIST, OWN_SECTION, LitellmReader, ignored
from extauthz.config.model import ExtauthzSection, GeneralSettings, LitellmSettings, Service, Settings, UnknownPrice
from extauthz.config.snapshot import Snapshot
from extauthz.config.source import FILE_BYTES_MAX, Entries, Mistakes, Node, child, read, resolved
from extauthz.domain.directory import Directory
from extauthz.domain.model_names import is_pattern
from extauthz.domain.prices import Prices
from extauthz.errors import ConfigError
from extauthz.pricing.catalog import Catalog, CatalogSource
from extauthz.pricing.price_list import find_listed

# How alike an unknown name is to one that matters, when it is taken for a slip and not for something of LiteLLM's.
SLIP_LIKENESS = 0.8

# Names that only extauthz knows, by the section that they stand in: LiteLLM would say nothing of a slip in one.
OWN_NAMES: Mapping[str, str] = {"": OWN_SECTION, f"{GENERAL}.": "budget_exceeded_models_policy"}

NAMED_IN_A_NOTICE_MAX = 50


def load(path: Path, environ: Mapping[str, str]) -> Snapshot:
    """Read a configuration file, with the environment that its `os.environ/NAME` refer to.

    Raises ConfigError with every mistake of the file.
    """
    mistakes = Mistakes(path)
    root = read(_text(path, mistakes), mistakes)
    reader = LitellmReader(root, environ, mistakes)
    own = resolved(child(root, OWN_SECTION) or Entries(line=1), environ, mistakes)
    section = validated(ExtauthzSection, own, (OWN_SECTION,), mistakes)
    general = validated(GeneralSettings, reader.sections[GENERAL], (GENERAL,), mistakes)
    litellm = validated(LitellmSettings, reader.sections[LITELLM], (LITELLM,), mistakes)
    check_references(own, mistakes)
    check_keys(own, reader.sections[GENERAL], mistakes)
    _check_slips(root, mistakes)
    unknown_price = section.unknown_price if section is not None else UnknownPrice()
    catalog = _catalog(reader, own, unknown_price, mistakes)
    if section is not None and section.shard_count > 1 and litellm is not None and litellm.max_budget:
        _check_no_global_budget(reader.sections[LITELLM], mistakes)
    if mistakes or section is None or general is None or litellm is None:
        raise ConfigError(mistakes.all())
    settings = _settings(section, general, litellm)
    directory = Directory(accounts_of(section, general, litellm, settings.timezone))
    notices = _notices(root, catalog, unknown_price)
    if settings.shard_count > 1:
        notices = (*notices, "with shard_by, budgets of users and end users are per organization")
    return Snapshot(settings, catalog, directory, notices)


def _text(path: Path, mistakes: Mistakes) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) <= FILE_BYTES_MAX:
            return raw.decode("utf-8-sig")
        mistakes.add(1, f"the file is larger than {FILE_BYTES_MAX} bytes: split off what is not needed")
    except OSError as error:
        mistakes.add(1, f"the file cannot be read: {error.strerror}; check the path and its permissions")
    except UnicodeDecodeError as error:
        mistakes.add(raw.count(b"\n", 0, error.start) + 1, "this is not UTF-8: save the file as UTF-8")
    return ""


def _catalog(reader: LitellmReader, own: Node, unknown_price: UnknownPrice, mistakes: Mistakes) -> Catalog:
    mistakes_before = len(mistakes)
    prices = Prices(unknown_price.input_cost_per_token, unknown_price.output_cost_per_token)
    source = CatalogSource(reader.offers(), reader.aliases(), reader.fallbacks(), prices)
    catalog = Catalog(source, find_listed)
    if len(mistakes) == mistakes_before:
        _check_upstream_auth(own, catalog, mistakes)
    return catalog


def _check_upstream_auth(own: Node, catalog: Catalog, mistakes: Mistakes) -> None:
    """Note rules for models that are not there: with a slip in the name, an upstream would get the client's key."""
    models = child(child(own, "upstream_auth") or own, "models")
    if isinstance(models, Entries):
        for name, entry in models.entries.items():
            if not is_pattern(name) and catalog.find(name) is None:
                hint = did_you_mean(name, catalog.listed())
                where = f"{OWN_SECTION}.upstream_auth.models"
                mistakes.add(entry.line, f"{where}: `{name}` is not in {MODEL_LIST}; {hint}")


def _check_no_global_budget(litellm: Node, mistakes: Mistakes) -> None:
    """Note a budget of all together, which books in shards cannot keep."""
    budget = child(litellm, "max_budget")
    if budget is not None:
        mistakes.add(budget.line, f"{LITELLM}.max_budget: there is no budget of all with shard_by: organization")


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
    if "timezone" not in section.model_fields_set and litellm.timezone is not None:
        values["timezone"] = litellm.timezone
    return Settings.model_construct(
        **values,
        models_policy=general.budget_exceeded_models_policy,
        user_header_name=general.user_header_name.lower() if general.user_header_name else None,
    )


def _notices(root: Entries, catalog: Catalog, unknown_price: UnknownPrice) -> tuple[str, ...]:
    notices = []
    if names := ignored(root):
        notices.append(f"settings that mean nothing here: {_listing(names)}")
    if not catalog.listed():
        notices.append(f"{MODEL_LIST} names no model: only patterns can be asked for, if there are any")
    if names := catalog.astray():
        notices.append(f"aliases and fallbacks lead to models that are not in {MODEL_LIST}: {_listing(names)}")
    if names := catalog.unpriced():
        notices.append(
            f"models without a price, neither in {MODEL_LIST} nor in the price list: {_listing(names)}; their tokens "
            f"cost {unknown_price.input_cost_per_token:f} and {unknown_price.output_cost_per_token:f} USD "
            f"({OWN_SECTION}.unknown_price). Write both prices, as 0 if they are free"
        )
    return tuple(notices)


def _listing(names: tuple[str, ...]) -> str:
    more = len(names) - NAMED_IN_A_NOTICE_MAX
    return ", ".join(names[:NAMED_IN_A_NOTICE_MAX]) + (f" and {more} more" if more > 0 else "")
