"""Mistakes in sentences: which line, what is wrong there, and what to write instead.

pydantic finds them and says them for programmers; this says them for the person with the file open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from extauthz.config.source import Mistakes, Node, Path, Scalar, located, plain, written
from extauthz.config.values import Lenient

Section = TypeVar("Section", bound=Lenient)

# Of a long list of teams or keys, so many are compared with a name that is not among them, and so many are shown.
COMPARED_NAMES_MAX = 2_000
SHOWN_NAMES_MAX = 20

SENTENCES: Mapping[str, str] = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "dict_type": "this must be a mapping: lines of `name: value` below it",
    "enum": "write one of: {expected}",
    "greater_than_equal": "the least is {ge}",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "less_than_equal": "the most is {le}",
    "list_type": "this must be a list: lines that begin with `- `",
    "literal_error": "write one of: {expected}",
    "model_type": "this must be a mapping: lines of `name: value` below it",
    "path_type": "write the path of a file",
    "string_type": "this must be text: put it in quotes",
    "tuple_type": "this must be a list: lines that begin with `- `",
}


def validated(model: type[Section], node: Node, path: Path, mistakes: Mistakes) -> Section | None:
    """Read a section that stands at `path`; None when it has mistakes, which are noted."""
    try:
        return model.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            _note(detail, model, node, path, mistakes)
        return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End a sentence about an unknown name with the nearest known one, or with some of those that there are."""
    names = sorted(known)
    near = get_close_matches(name, names[:COMPARED_NAMES_MAX], n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    more = ", …" if len(names) > SHOWN_NAMES_MAX else ""
    return f"known here: {', '.join(names[:SHOWN_NAMES_MAX])}{more}" if names else "there are none"


def _note(detail: ErrorDetails, model: type[Lenient], node: Node, path: Path, mistakes: Mistakes) -> None:
    # A mistake in a key of a mapping ends in "[key]".
    location = tuple(step for step in detail["loc"] if step != "[key]")
    line, found, existing = located(node, location)
    if isinstance(found, Scalar) and found.missing:
        return
    variable = found.variable if isinstance(found, Scalar) else None
    # What is missing is named; other steps that the file does not have are the model's own.
    shown = location if detail["type"] == "missing" else existing
    mistakes.add(line, f"{written((*path, *shown))}: {_sentence(detail, model, location, variable)}")


def _sentence(detail: ErrorDetails, model: type[Lenient], location: Path, variable: str | None) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(location[-1]), _fields_at(model, location[:-1]))}"
    if kind == "missing":
        return "this is missing: add it"
    if kind == "value_error":
        # The sentence may quote the value.
        sentence = str(context["error"]) if variable is None else "look up what may stand here"
    else:
        sentence = SENTENCES.get(kind, "this cannot stand here").format_map(
            {name: str(value).replace("'", "").replace(" or ", ", ") for name, value in context.items()}
        )
    return sentence if variable is None else f"the value of {variable} does not fit: {sentence}"


def _fields_at(model: type[Lenient], location: Path) -> tuple[str, ...]:
    """List the keys that may stand at a place below a model."""
    in_container = False
    for step in location:
        if in_container:  # the step is an id or an index, and the model is that of all values
            in_container = False
            continue
        annotation = next(field.annotation for name, field in model.model_fields.items() if step in {name, field.alias})
        in_container = get_origin(annotation) in {dict, tuple}
        model = _model_in(annotation) or model
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: object) -> type[Lenient] | None:
    """Find the model inside `Model | None`, `dict[str, Model]` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, Lenient):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
