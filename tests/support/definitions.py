"""Our own definitions of Envoy's messages, as lists: what is defined, what a message carries, what Envoy has of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from extauthz._proto import envoy


def fields_in(message: Message) -> Iterator[str]:
    """Name the fields of our definitions that a message carries, at any depth."""
    for field, value in message.ListFields():
        if not message.DESCRIPTOR.GetOptions().map_entry and message.DESCRIPTOR.full_name.startswith("envoy."):
            yield field.full_name
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            held: Iterable[object] = value.values()
        else:
            held = value if field.is_repeated else (value,)
        for each in held:
            if isinstance(each, Message):
                yield from fields_in(each)


def descriptor_of(field: FieldDescriptor) -> bytes:
    """Write the beginning of a field's descriptor as a program holds it."""
    label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
    kind = FieldDescriptorProto.Type.Value(FieldDescriptorProto.Type.Name(field.type))  # type: ignore[arg-type]
    return FieldDescriptorProto(name=field.name, number=field.number, label=label, type=kind).SerializeToString()


def descriptor_of_value(value: EnumValueDescriptor) -> bytes:
    """Write the descriptor of an enum's value as a program holds it."""
    return EnumValueDescriptorProto(name=value.name, number=value.number).SerializeToString()


def value_name(value: EnumValueDescriptor) -> str:
    """Name an enum's value in full."""
    return f"{value.type.full_name}.{value.name}"


def fields_defined() -> Iterator[FieldDescriptor]:
    """Give every field of our definitions."""
    for message in messages_defined():
        yield from message.fields


def values_defined() -> Iterator[EnumValueDescriptor]:
    """Give every value of our enums."""
    for file in files_defined():
        for enum in file.enum_types_by_name.values():
            yield from enum.values
    for message in messages_defined():
        for enum in message.enum_types:
            yield from enum.values


def messages_defined() -> Iterator[Descriptor]:
    """Give every message of our definitions, those inside others included."""
    waiting = [message for file in files_defined() for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            yield message
            waiting += message.nested_types


def files_defined() -> Iterator[FileDescriptor]:
    """Give our definitions of Envoy's messages, file by file."""
    for module in pkgutil.walk_packages(envoy.__path__, f"{envoy.__name__}."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR
