"""The models that a request names: in its body, in case these fail, and in path, query and header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from extauthz.domain.ask import Ask, RefusedBodyError, Unreadable
from extauthz.domain.document import KEYS_MAX, Json, folded

MODEL_NAME_BYTES_MAX = 256
MODELS_MAX = 16
FALLBACKS_MAX = 32

FALLBACK_KEYS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks")
# LiteLLM takes settings of its router from the body. Apart from fallbacks, these do not decide which model answers.
OVERRIDE = "router_settings_override"
_HARMLESS_OVERRIDES = frozenset(
    {"num_retries", "timeout", "stream_timeout", "retry_policy", "model_group_retry_policy"}
)

# LiteLLM also takes whole deployments from a body, and what an answer is said to cost, unless it is told not to.
# OpenRouter takes `models`, its own names of what may answer instead: fallbacks that no list here has the price of.
_DEPLOYMENTS = ("deployment_id", "model_list", "models", "user_config")
_PRICE = "cost_per"

NO_MODEL = "Name the model: the body needs a `model` that is a text or a list of texts."
_DISAGREEING = "Name one and the same model in path, query, `x-litellm-model` and body, or name it in the body alone."
MODEL_UNSEEN = "The body is too large to be read to its end: put `model` first, or send a smaller body."
_BAD_FALLBACKS = (
    '`{}` must be a list of names, of {{"model": name}} objects without further keys, or of {{name: [names]}} objects.'
)


def agree_on_model(
    ask: Ask,
    *,
    path_model: str | None,
    query_models: tuple[str, ...],
    header_models: tuple[str, ...],
    required: bool = True,
) -> Ask | Unreadable:
    """Make sure that every place that names a model names the same one: upstreams differ in which they obey.

    `header_models` are the values of `x-litellm-model`. A body that names none gets the model of the other places.
    """
    elsewhere = {*query_models, *header_models, path_model or ""} - {""}
    match sorted(elsewhere), ask.models:
        case [], ():
            return Unreadable(NO_MODEL) if required else ask
        case [], _:
            return ask
        case [name], () if is_model_name(name):
            return replace(ask, models=(name,))
        case [name], (named,) if name == named:
            return ask
        case _:
            return Unreadable(_DISAGREEING)


def is_model_name(text: str) -> bool:
    """Tell whether nobody reads anything else into a text: several models, or the same one without its spaces."""
    if not text.isprintable() or "," in text or text != text.strip():
        return False
    return 0 < len(text.encode()) <= MODEL_NAME_BYTES_MAX


def models_of(document: Json, *, required: bool, truncated: bool) -> tuple[str, ...]:
    """Read the models of a body, none where it names none and need not."""
    model = document.get("model")
    if model is None:
        if required:
            raise RefusedBodyError(MODEL_UNSEEN if truncated else NO_MODEL)
        return ()
    # LiteLLM takes several models as a list or with commas between them.
    match model:
        case str():
            names = [name.strip() for name in model.split(",")] if "," in model else [model]
        case list():
            names = model
        case _:
            raise RefusedBodyError(NO_MODEL)
    return _checked_names(names, key="model", count_max=MODELS_MAX)


def fallbacks_of(document: Json) -> tuple[str, ...]:
    """Read the models that a body names in case the first ones fail."""
    sources = (document, _override(document))
    written = [(key, source[key]) for source in sources for key in FALLBACK_KEYS if key in source]
    names = [name for key, value in written for name in _fallback_names(key, value)]
    return _checked_names(names, key="fallbacks", count_max=FALLBACKS_MAX) if names else ()


def refuse_deployments(document: Json) -> None:
    """Refuse keys by which another deployment than the model's would answer, or at another price."""
    for key in document:
        if key in _DEPLOYMENTS or _PRICE in key:
            raise RefusedBodyError(
                "A body may not set deployments or prices: they are the operator's. Name other models in `fallbacks`."
            )


def refuse_overlaid(document: Json, steering: Mapping[str, str]) -> None:
    """Refuse keys that steer where LiteLLM and the OpenAI SDK lay them over the body that they send upstream."""
    match document.get("extra_body"):
        case None:
            pass
        case dict(extra) if len(extra) <= KEYS_MAX and steering.keys().isdisjoint(map(folded, extra)):
            refuse_deployments(extra)
        case _:
            raise RefusedBodyError("`extra_body` must be an object that does not repeat keys such as `model` or `n`.")


def _override(document: Json) -> Json:
    match document.get(OVERRIDE):
        case None:
            return {}
        case dict(settings) if settings.keys() <= _HARMLESS_OVERRIDES.union(FALLBACK_KEYS):
            return settings
        case _:
            raise RefusedBodyError(f"`{OVERRIDE}` may only set fallbacks, retries and timeouts here.")


def _fallback_names(key: str, value: object) -> Iterator[object]:
    """Give the names in LiteLLM's three ways to write them: `a`, `{"model": "a"}`, `{"for-model": ["a"]}`."""
    for entry in _entries(key, value):
        match entry:
            case str():
                yield entry
            case {"model": str(name), **rest} if not rest:
                yield name
            case dict():
                for instead in entry.values():
                    yield from _entries(key, instead)
            case _:
                raise RefusedBodyError(_BAD_FALLBACKS.format(key))


def _entries(key: str, value: object) -> list[object]:
    match value:
        case None:
            return []
        case list():
            return value
        case _:
            raise RefusedBodyError(_BAD_FALLBACKS.format(key))


def _checked_names(names: Sequence[object], *, key: str, count_max: int) -> tuple[str, ...]:
    if not 0 < len(names) <= count_max:
        raise RefusedBodyError(f"`{key}` must name 1 to {count_max} models.")
    checked = tuple(name for name in names if isinstance(name, str) and is_model_name(name))
    if len(checked) < len(names):
        raise RefusedBodyError(
            f"`{key}` must hold names of models: 1 to {MODEL_NAME_BYTES_MAX} bytes each, no comma, no space around."
        )
    return checked
