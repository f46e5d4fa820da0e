"""Answers as JSON: protobuf's own, with the field names of the .proto, every field there, and numbers as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

Document = dict[str, object]


def document(message: Message) -> Document:
    """Give a message as JSON's values. What is not set is null, where protobuf can tell; its parser reads that back.

    protobuf's own printer writes 64-bit numbers as strings, with which no script can compute.
    """
    return {
        field.name: _plain(message, field.name, repeated=field.is_repeated, optional=field.has_presence)
        for field in message.DESCRIPTOR.fields
    }


def fields_of(struct: Struct) -> Document:
    """Give the fields of a payer as JSON's values, by their names; numbers without a fraction are whole."""
    return {name: _whole(value) for name, value in sorted(MessageToDict(struct).items())}


def json_line(value: object) -> str:
    """Write a value in one line that is safe for every terminal: what is not ASCII is escaped."""
    return json.dumps(value)


def yaml_line(value: object) -> str:
    """Write a value in one line of YAML that is as safe: YAML has no pairs of escapes for one letter, as JSON has."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isascii() and letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)


def _plain(message: Message, name: str, *, repeated: bool, optional: bool) -> object:
    value = getattr(message, name)
    if isinstance(value, Struct):
        return fields_of(value)
    if isinstance(value, Mapping):
        return {key: _value(item) for key, item in value.items()}
    if repeated:
        return [_value(item) for item in value]
    return None if optional and not message.HasField(name) else _value(value)


def _value(value: object) -> object:
    match value:
        case Timestamp():
            return value.ToJsonString()
        case Message():
            return document(value)
        case _:
            return value


def _whole(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value
