"""LiteLLM's sections: the models, their prices, aliases and fallbacks, read in LiteLLM's own format.

Only what concerns budgets is read, so that variables which nobody here needs (an upstream's key, say) may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from extauthz.config.litellm_margins import MARGINS, Margins
from extauthz.config.litellm_routers import MODEL_PREFIX, PARAMETER_MARK, Router, chosen_by
from extauthz.config.litellm_settings import GeneralSettings, LitellmSettings
from extauthz.config.source import (
    Entries,
    Items,
    Mistakes,
    Node,
    Path,
    Scalar,
    child,
    number,
    picked,
    resolved,
    written,
)
from extauthz.config.values import PRICE_USD_MAX
from extauthz.config.variables import ENVIRONMENT_VARIABLES, Variables
from extauthz.domain.model_names import is_pattern, most_specific
from extauthz.pricing import amounts
from extauthz.pricing.offers import ANY_MODEL, Alias, Fallbacks, Offer

OWN_SECTION = "extauthz"
MODEL_LIST = "model_list"
GENERAL = "general_settings"
LITELLM = "litellm_settings"
ROUTER = "router_settings"

FALLBACKS = "fallbacks"
SPECIAL_FALLBACKS = ("context_window_fallbacks", "content_policy_fallbacks")
DEFAULT_FALLBACKS = "default_fallbacks"
FALLBACK_KEYS = frozenset({FALLBACKS, *SPECIAL_FALLBACKS, DEFAULT_FALLBACKS})
ALIASES = "model_group_alias"
PROVIDER_BUDGETS = "provider_budget_config"
COMPLETION_MODEL = "completion_model"
MODEL_FALLBACKS = "model_fallbacks"
INCLUDE = "include"

# What is read of each section; the rest is named in one notice.
KNOWN_KEYS: Mapping[str, frozenset[str]] = {
    GENERAL: frozenset(GeneralSettings.model_fields) | {COMPLETION_MODEL},
    LITELLM: FALLBACK_KEYS | {MARGINS, MODEL_FALLBACKS} | frozenset(LitellmSettings.model_fields),
    ROUTER: FALLBACK_KEYS | {ALIASES, PROVIDER_BUDGETS},
}

# LiteLLM's price map has 165 fields for prices, each with one of these in its name; releases add more of them.
PRICE_MARKS = ("cost_per", "_cost", "pricing")

# The lengths of input that a tier of TIERED is for.
RANGE = "range"

# No model reads as much.
LENGTH_TOKENS_MAX = 1_000_000_000

# With one of these a deployment hands requests on by itself.
LEADING_ELSEWHERE = FALLBACK_KEYS | {"context_window_fallback_dict"}

NOT_A_MAPPING = "this must be a mapping: lines of `name: value` below it"
NOT_A_LIST = "this must be a list: lines that begin with `- `"


def is_price(name: str) -> bool:
    """Tell whether a field is a price, by its name."""
    return any(mark in name for mark in PRICE_MARKS)


def _is_true(value: object) -> bool:
    """Tell whether a value is true by YAML 1.1, which LiteLLM reads."""
    return value is True or (isinstance(value, str) and value.lower() in {"true", "yes", "on"})


def _is_about_prices(name: str) -> bool:
    return is_price(name) or name in amounts.UPLIFTS


def ignored(root: Entries) -> tuple[str, ...]:
    """Name what stands in the file and means nothing here, in the order of the alphabet."""
    read = {OWN_SECTION, MODEL_LIST, INCLUDE, ENVIRONMENT_VARIABLES, *KNOWN_KEYS}
    names = [name for name in root.entries if name not in read]
    for section, known in KNOWN_KEYS.items():
        node = child(root, section)
        if isinstance(node, Entries):
            names += [f"{section}.{name}" for name in node.entries if name not in known]
    return tuple(sorted(names))


class LitellmReader:
    """Reads one file's LiteLLM sections, with the environment that its `os.environ/NAME` refer to.

    `sections` are general_settings, litellm_settings and router_settings, reduced to what is read of them.
    """

    def __init__(self, root: Entries, environ: Mapping[str, str], mistakes: Mistakes) -> None:
        self._root = root
        self._environ = Variables(root, environ)
        self._mistakes = mistakes
        self.sections = {name: self._section(name, known) for name, known in KNOWN_KEYS.items()}
        self._margins = self._read_margins()
        self._deployments = [*self._read_deployments()]

    def offers(self) -> tuple[Offer, ...]:
        """Give what `model_list` says: one offer for each deployment that is understood, but for routers."""
        return tuple(each for each in self._deployments if isinstance(each, Offer))

    def aliases(self) -> tuple[Alias, ...]:
        """Read `router_settings.model_group_alias`: a name, or a mapping of `model` and `hidden`.

        A router is an alias of the first model that it may choose.
        """
        path = (ROUTER, ALIASES)
        aliases = [Alias(name, first, others=tuple(rest)) for name, (first, *rest) in self._led_by_routers().items()]
        for name, node in self._entries(child(self.sections[ROUTER], ALIASES), path):
            target = self._text(child(node, "model") if isinstance(node, Entries) else node, node.line, (*path, name))
            hidden = child(node, "hidden")
            if target is not None:
                aliases.append(Alias(name, target, isinstance(hidden, Scalar) and _is_true(hidden.value)))
        return tuple(aliases)

    def fallbacks(self) -> tuple[Fallbacks, ...]:
        """Read every list of fallbacks.

        `default_fallbacks` are for models that `fallbacks` does not name. LiteLLM takes the router's list or the other
        one; here each of them counts, so that nothing is reached unseen. So does all that a router may choose, and what
        LiteLLM asks whatever a request names: `completion_model` and `model_fallbacks`.
        """
        settings = {name: self.sections[name] for name in (LITELLM, ROUTER)}
        defaults = tuple(
            name
            for section, node in settings.items()
            for name in self._names(child(node, DEFAULT_FALLBACKS), (section, DEFAULT_FALLBACKS))
        )
        general = [self._fallbacks(node, (name, FALLBACKS)) for name, node in settings.items()]
        lists = [
            {**models, ANY_MODEL: (*models.get(ANY_MODEL, ()), *defaults)} for models in filter(None, general)
        ] or [{ANY_MODEL: defaults}]
        for name, targets in self._led_by_routers().items():
            lists[0][name] = (*lists[0].get(name, lists[0].get(ANY_MODEL, ())), *targets[1:])
        always = self._asked_always()
        lists[0] = {name: (*names, *always) for name, names in lists[0].items()}
        for key in SPECIAL_FALLBACKS:
            lists += [self._fallbacks(node, (name, key)) for name, node in settings.items()]
        return tuple(Fallbacks(models) for models in lists if models)

    def _asked_always(self) -> tuple[str, ...]:
        """List what any name may lead to."""
        path = (LITELLM, MODEL_FALLBACKS)
        models = self._names(child(self.sections[LITELLM], MODEL_FALLBACKS), path)
        server = child(self.sections[GENERAL], COMPLETION_MODEL)
        named = None if server is None else self._text(server, server.line, (GENERAL, COMPLETION_MODEL))
        return (*models, *([named] if named is not None else []))

    def _section(self, name: str, known: frozenset[str]) -> Entries:
        node = child(self._root, name)
        if node is not None and not isinstance(node, Entries):
            self._wrong(node.line, (name,), NOT_A_MAPPING)
        return self._resolved(picked(node, known.__contains__))

    def _resolved(self, entries: Entries) -> Entries:
        found = resolved(entries, self._environ, self._mistakes)
        return found if isinstance(found, Entries) else entries

    def _read_margins(self) -> Margins:
        path = (LITELLM, MARGINS)
        margins = {}
        for provider, node in self._entries(child(self.sections[LITELLM], MARGINS), path):
            share = child(node, "percentage") if isinstance(node, Entries) else node
            if isinstance(share, Scalar) and not share.missing:
                amount = self._number(share)
                if amount is None or not -PRICE_USD_MAX <= amount <= PRICE_USD_MAX:
                    self._wrong(share.line, (*path, provider), "this is not a margin: write 0.1 for 10 %, say")
                else:
                    margins[provider] = 1 + Decimal(amount)
        return Margins(margins)

    def _read_deployments(self) -> Iterator[Offer | Router]:
        for item, path in self._items(child(self._root, MODEL_LIST), (MODEL_LIST,)):
            offer = self._offer(item, path)
            if offer is not None and offer.upstream_model.startswith(MODEL_PREFIX) and not is_pattern(offer.name):
                parameters = picked(child(item, "litellm_params"), lambda key: PARAMETER_MARK in key)
                yield Router(offer.name, self._resolved(parameters))
            elif offer is not None:
                yield offer

    def _led_by_routers(self) -> dict[str, tuple[str, ...]]:
        """List what each router may choose, without those that there is nothing to choose for."""
        names = dict.fromkeys(offer.name for offer in self.offers())
        patterns = tuple(filter(is_pattern, names))
        served = {
            *names,
            *(name for name, _ in self._entries(child(self.sections[ROUTER], ALIASES), (ROUTER, ALIASES))),
            *(router.name for router in self._deployments if isinstance(router, Router)),
        }

        def is_served(text: str) -> bool:
            return text in served or ("/" in text and most_specific(patterns, text) is not None)

        models = [name for name in names if not is_pattern(name)]
        led: dict[str, tuple[str, ...]] = {}
        for router in self._deployments:
            if isinstance(router, Router) and (targets := router.targets(models, is_served)):
                led[router.name] = (*led.get(router.name, ()), *targets)
        return {name: chosen for name in led if (chosen := chosen_by(name, led))}

    def _offer(self, item: Node, path: Path) -> Offer | None:
        params_node, info_node = child(item, "litellm_params"), child(item, "model_info")
        params = self._resolved(
            picked(
                params_node, lambda key: _is_about_prices(key) or key in {"model", "base_model", "custom_llm_provider"}
            )
        )
        info = self._resolved(
            picked(info_node, lambda key: _is_about_prices(key) or key == "base_model" or key.startswith("max_"))
        )
        name = self._text(child(item, "model_name"), item.line, (*path, "model_name"))
        model = self._text(child(params, "model"), item.line, (*path, "litellm_params", "model"))
        provider = child(params, "custom_llm_provider")
        base_model = child(info, "base_model") or child(params, "base_model")
        prices = (
            *self._amounts(params, (*path, "litellm_params")),
            *self._amounts(info, (*path, "model_info")),
        )
        limits = {
            key: self._tokens(child(info, key), (*path, "model_info", key))
            for key in ("max_input_tokens", "max_output_tokens", "max_tokens")
        }
        if name is None or model is None:
            return None
        return Offer(
            name=name,
            upstream_model=str(base_model.value) if isinstance(base_model, Scalar) else model,
            provider=str(provider.value) if isinstance(provider, Scalar) and base_model is None else None,
            amounts=amounts.dearest_of_each(prices),
            uplift=max(
                (
                    Decimal(1),
                    *self._uplifts(params, (*path, "litellm_params")),
                    *self._uplifts(info, (*path, "model_info")),
                )
            )
            * self._margins.of(model, str(provider.value) if isinstance(provider, Scalar) else None),
            context_tokens=limits["max_input_tokens"],
            # LiteLLM's older name for the same.
            output_tokens_max=limits["max_output_tokens"] or limits["max_tokens"],
            leads_elsewhere=bool(picked(params_node, LEADING_ELSEWHERE.__contains__).entries),
        )

    def _amounts(self, node: Node, path: Path) -> Iterator[amounts.Amount]:
        for name, entry in self._entries(node, path):
            if is_price(name):
                yield from self._prices(name, entry, (*path, name))

    def _prices(self, name: str, node: Node, path: Path) -> Iterator[amounts.Amount]:
        """Read a price. Some stand for several; of those the text that explains them (units, say) is left out."""
        match name, node:
            case amounts.TIERED, Items(items=items):
                for index, item in enumerate(items):
                    yield from self._tier(item, (*path, index))
            case amounts.OFF_PEAK, Entries():
                # Which hours they are is left out: the dearer of two prices for the same counts.
                yield from self._amounts(node, path)
            case _:
                yield from self._numbers(name, node, path)

    def _numbers(self, name: str, node: Node, path: Path) -> Iterator[amounts.Amount]:
        match node:
            case Items(items=items):
                for index, item in enumerate(items):
                    yield from self._numbers(name, item, (*path, index))
            case Entries(entries=entries):
                for key, entry in entries.items():
                    if is_price(key) or not self._is_text(entry.node):
                        yield from self._numbers(name, entry.node, (*path, key))
            case Scalar():
                usd = self._usd(node, path)
                if usd is not None:
                    yield amounts.named(name, usd)

    def _tier(self, tier: Node, path: Path) -> Iterator[amounts.Amount]:
        """Read the prices of one length of input, those of any length where it is for something else."""
        bounds = child(tier, RANGE)
        begin = bounds.items[0] if isinstance(bounds, Items) and bounds.items else None
        tokens = self._number(begin) if isinstance(begin, Scalar) else None
        above = int(tokens) if tokens is not None and 0 <= tokens <= LENGTH_TOKENS_MAX else 0
        for amount in self._amounts(tier, path):
            yield replace(amount, above_tokens=max(above, amount.above_tokens))

    def _uplifts(self, node: Node, path: Path) -> Iterator[Decimal]:
        for name, entry in self._entries(node, path):
            if name in amounts.UPLIFTS and isinstance(entry, Scalar):
                factor = self._usd(entry, (*path, name))
                if factor is not None:
                    yield factor

    def _usd(self, node: Scalar, path: Path) -> Decimal | None:
        if node.value is None or node.missing:
            return None
        amount = self._number(node)
        if amount is None or not 0 <= amount <= PRICE_USD_MAX:
            self._wrong(node.line, path, f"this is not a price: write a number from 0 to {PRICE_USD_MAX} in USD")
            return None
        return Decimal(amount)

    def _is_text(self, node: Node) -> bool:
        return isinstance(node, Scalar) and isinstance(node.value, str) and self._number(node) is None

    def _number(self, node: Scalar) -> int | Decimal | None:
        value = number(node.value.strip().replace("_", "")) if isinstance(node.value, str) else node.value
        return value if not isinstance(value, bool) else None

    def _tokens(self, node: Node | None, path: Path) -> int | None:
        if not isinstance(node, Scalar) or node.missing:
            return None
        count = self._number(node)
        if count is None or count != int(count) or count < 1:
            self._wrong(node.line, path, "this is not a number of tokens: write a whole number, 1 or more")
            return None
        return int(count)

    def _fallbacks(self, settings: Entries, path: tuple[str, str]) -> dict[str, tuple[str, ...]]:
        """Read `[{model: [names]}, …]`; a bare name in the list is for every model."""
        found: dict[str, tuple[str, ...]] = {}
        for item, item_path in self._items(child(settings, path[-1]), path):
            led = (
                dict(self._entries(item, item_path))
                if isinstance(item, Entries)
                else {ANY_MODEL: Items(item.line, (item,))}
            )
            for model, names in led.items():
                found[model] = (*found.get(model, ()), *self._names(names, (*item_path, model)))
        return found

    def _names(self, node: Node | None, path: Path) -> Iterator[str]:
        """Read a list of model names, each alone or as `{model: name, …}`."""
        for item, item_path in self._items(node, path):
            name = self._text(child(item, "model") if isinstance(item, Entries) else item, item.line, item_path)
            if name is not None:
                yield name

    def _items(self, node: Node | None, path: Path) -> Iterator[tuple[Node, Path]]:
        if isinstance(node, Items):
            yield from ((item, (*path, index)) for index, item in enumerate(node.items))
        elif node is not None:
            self._wrong(node.line, path, NOT_A_LIST)

    def _entries(self, node: Node | None, path: Path) -> Iterator[tuple[str, Node]]:
        if isinstance(node, Entries):
            yield from ((key, entry.node) for key, entry in node.entries.items())
        elif node is not None:
            self._wrong(node.line, path, NOT_A_MAPPING)

    def _text(self, node: Node | None, line: int, path: Path) -> str | None:
        match node:
            case Scalar(missing=True):
                return None
            case Scalar(value=bool()) | Items() | Entries():
                self._wrong(node.line, path, "this must be text: put it in quotes")
                return None
            case None | Scalar(value=None) | Scalar(value=""):
                self._wrong(line, path, "this is missing: add it")
                return None
            case Scalar(value=value):
                return str(value)

    def _wrong(self, line: int, path: Path, sentence: str) -> None:
        self._mistakes.add(line, f"{written(path)}: {sentence}")
