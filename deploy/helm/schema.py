"""Writes the chart's values.schema.json and the table in its README (`make chart`), or tells whether they are stale.

Both come from values.yaml: what a value is stands in the comment above it (`# -- …`), its schema is read off the
default, or stands in a line `# @schema {…}`. The schema of `config:` is the program's own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from extauthz.config.litellm_settings import GeneralSettings, LitellmSettings
from extauthz.config.model import ExtauthzSection

CHART = Path(__file__).parent / "extauthz"
VALUES = CHART / "values.yaml"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
BEGIN, END = "<!-- values: written by deploy/helm/schema.py -->", "<!-- end of values -->"

DESCRIBED = "# -- "
ANNOTATED = "# @schema "
DEFAULT_CHARACTERS_MAX = 80

# Any setting may stand in the environment instead; what comes of it is checked by the program.
ENVIRONMENT: JsonSchemaValue = {"type": "string", "pattern": "^os\\.environ/[A-Za-z_][A-Za-z0-9_]*$"}

NUMBER: JsonSchemaValue = {"type": "string", "pattern": "^\\s*-?[0-9.]+([eE][-+]?[0-9]+)?\\s*$"}

# Shapes that several values share. What Kubernetes itself checks is left to it.
SHARED: Mapping[str, JsonSchemaValue] = {
    "strings": {"type": "object", "additionalProperties": {"type": "string"}},
    "kubernetes": {"type": "object"},
    "named": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    "quantities": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
    "resources": {
        "type": "object",
        "properties": {
            "requests": {"$ref": "#/$defs/quantities"},
            "limits": {"$ref": "#/$defs/quantities"},
            "claims": {"type": "array", "items": {"type": "object"}},
        },
        "additionalProperties": False,
    },
    "environment": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "string"},
            "valueFrom": {"type": "object"},
        },
        "required": ["name"],
        "additionalProperties": False,
    },
    "peers": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "podSelector": {"type": "object"},
                "namespaceSelector": {"type": "object"},
                "ipBlock": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "envoyDuration": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?s$"},
    "gatewayDuration": {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"},
    "targetRefs": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "group": {"const": "gateway.networking.k8s.io"},
                "kind": {"enum": ["Gateway", "HTTPRoute"]},
                "name": {"type": "string"},
                "sectionName": {"type": "string"},
            },
            "required": ["group", "kind", "name"],
            "additionalProperties": False,
        },
    },
    "countOrShare": {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+%$"},
            {"type": "null"},
        ]
    },
    "probe": {
        "type": "object",
        "properties": {
            name: {"type": "integer", "minimum": least}
            for name, least in {
                "initialDelaySeconds": 0,
                "periodSeconds": 1,
                "timeoutSeconds": 1,
                "successThreshold": 1,
                "failureThreshold": 1,
            }.items()
        },
        "additionalProperties": False,
    },
    "check": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
            "expect": {"enum": ["allow", "deny"]},
            "args": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "expect"],
        "additionalProperties": False,
    },
}


class ConfigSchema(GenerateJsonSchema):
    """The program's model as JSON schema, with all that the program takes besides: variables, and short forms."""

    # The defaults are the program's; here they would only have to be kept in step.
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave defaults out."""
        return self.generate_inner(schema["schema"])

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Take a number, in quotes or not, or a variable."""
        return {"anyOf": [super().int_schema(schema), NUMBER, ENVIRONMENT]}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Take a number, in quotes or not, or a variable."""
        found = super().decimal_schema(schema)
        (plain,) = (each for each in found["anyOf"] if each["type"] == "number")
        return {"anyOf": [plain, NUMBER, ENVIRONMENT]}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """Take true, false, or a variable."""
        return {"anyOf": [super().bool_schema(schema), ENVIRONMENT]}

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Take one of the words, or a variable."""
        return {"anyOf": [super().enum_schema(schema), ENVIRONMENT]}

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Take one of the values, or a variable."""
        return {"anyOf": [super().literal_schema(schema), ENVIRONMENT]}

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """Take a text; a number is one as well."""
        return {**super().str_schema(schema), "type": ["string", "number"]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Take the short forms that a model reads."""
        found = super().model_schema(schema)
        found.pop("title", None)
        if schema["cls"].__name__ in SHORT_FORMS:
            return {"anyOf": [found, {"type": "string"}]}
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's
        """Titles would only be the names again."""
        return False


# Models that may be written as one word.
SHORT_FORMS = frozenset({"EstimateSettings", "UnknownPrice", "UpstreamAuthRule"})


@dataclass(frozen=True, slots=True)
class Value:
    """One value of values.yaml: its dotted path, what its comment says, and its default."""

    path: str
    description: str
    default: object


def config_schema() -> dict[str, JsonSchemaValue]:
    """Give the definitions that `config:` is made of, the whole under `config`."""
    models: list[tuple[type[BaseModel], Any]] = [
        (model, "validation") for model in (ExtauthzSection, GeneralSettings, LitellmSettings)
    ]
    roots, found = ConfigSchema().generate_definitions([(m, mode, m.__pydantic_core_schema__) for m, mode in models])
    definitions: dict[str, JsonSchemaValue] = {str(name): each for name, each in found.items()}
    sections = {model: roots[(model, mode)] for model, mode in models}
    definitions["config"] = {
        "type": "object",
        "properties": {
            "model_list": {"type": "array", "items": {"type": "object", "required": ["model_name", "litellm_params"]}},
            "general_settings": sections[GeneralSettings],
            "litellm_settings": sections[LitellmSettings],
            "router_settings": {"type": "object"},
            "extauthz": sections[ExtauthzSection],
        },
        "additionalProperties": False,
    }
    return definitions


class ValuesFile:
    """values.yaml with its comments."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        root = yaml.compose(text)
        assert isinstance(root, yaml.MappingNode), "values.yaml is a mapping"  # noqa: S101
        self._root = root
        self._defaults = yaml.safe_load(text)

    def schema(self) -> JsonSchemaValue:
        """Give the schema of the file, without definitions."""
        return self._object(self._root, self._defaults, ())

    def values(self) -> Iterator[Value]:
        """Give every value that somebody may set, in the file's order."""
        yield from self._values(self._root, self._defaults, ())

    def _object(self, node: yaml.MappingNode, defaults: Mapping[str, object], path: tuple[str, ...]) -> JsonSchemaValue:
        properties: dict[str, JsonSchemaValue] = {}
        for key, value in node.value:
            here = (*path, key.value)
            comment = self._comment(key)
            default = defaults[key.value]
            if comment.schema is not None:
                properties[key.value] = {**comment.schema}
            elif isinstance(value, yaml.MappingNode) and isinstance(default, dict):
                properties[key.value] = self._object(value, default, here)
            else:
                properties[key.value] = {"type": _type(default, here)}
            if comment.description:
                properties[key.value]["description"] = comment.description
        if not path:  # what Helm itself adds, where this chart is a part of another one
            properties["enabled"] = {"type": "boolean"}
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def _values(self, node: yaml.MappingNode, defaults: Mapping[str, object], path: tuple[str, ...]) -> Iterator[Value]:
        for key, value in node.value:
            here = (*path, key.value)
            comment, default = self._comment(key), defaults[key.value]
            if comment.schema is None and isinstance(value, yaml.MappingNode) and isinstance(default, dict):
                yield from self._values(value, default, here)
            elif not comment.described:
                sys.exit(f"{VALUES}:{key.start_mark.line + 1}: {'.'.join(here)}: say what it is, after `# -- `")
            else:
                yield Value(".".join(here), comment.description, default)

    def _comment(self, key: yaml.Node) -> Comment:
        first = last = key.start_mark.line
        indent = " " * key.start_mark.column
        while first > 0 and self._lines[first - 1].startswith(f"{indent}#"):
            first -= 1
        return Comment.of(line.strip() for line in self._lines[first:last])


@dataclass(frozen=True, slots=True)
class Comment:
    """What stands above a value."""

    described: bool
    description: str
    schema: JsonSchemaValue | None

    @classmethod
    def of(cls, lines: Iterator[str]) -> Comment:
        """Read the lines of a comment."""
        words: list[str] = []
        described, schema = False, None
        for line in lines:
            if line.startswith(ANNOTATED):
                schema = json.loads(line.removeprefix(ANNOTATED))
            else:
                described = described or line.startswith(DESCRIBED)
                words.append(line.removeprefix(DESCRIBED).removeprefix("#").strip())
        return cls(described, " ".join(words), schema)


def _type(default: object, path: tuple[str, ...]) -> str:
    match default:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case str():
            return "string"
        case _:
            sys.exit(f"{VALUES}: {'.'.join(path)}: its default tells no schema: write `{ANNOTATED.strip()} {{…}}`")


def schema_text(values: ValuesFile) -> str:
    """Write values.schema.json."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart extauthz",
        **values.schema(),
        "$defs": {**SHARED, **config_schema()},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def table(values: ValuesFile) -> str:
    """Write the README's table of values."""
    rows = [f"| `{value.path}` | {_cell(value.description)} | {_default(value.default)} |" for value in values.values()]
    return "\n".join(["| value | what it is | default |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(default: object) -> str:
    text = json.dumps(default, ensure_ascii=False)
    return _cell(f"`{text}`") if len(text) <= DEFAULT_CHARACTERS_MAX else "see values.yaml"


def readme_text(readme: str, values: ValuesFile) -> str:
    """Put the table in its place in the README."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(readme):
        sys.exit(f"{README}: the lines that the table stands between are gone: {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table(values)}\n\n{END}", readme)


def main() -> None:
    """Write, or with --check compare."""
    values = ValuesFile(VALUES.read_text("utf-8"))
    wanted = {SCHEMA: schema_text(values), README: readme_text(README.read_text("utf-8"), values)}
    if sys.argv[1:] == ["--check"]:
        stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
        if stale:
            sys.exit(f"{', '.join(stale)}: not what values.yaml and the configuration's model say: run `make chart`")
        return
    for path, text in wanted.items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
