import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payer(_message.Message):
    __slots__ = ("scope", "fields", "created_at", "created_by", "status", "replaced")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    scope: str
    fields: _struct_pb2.Struct
    created_at: _timestamp_pb2.Timestamp
    created_by: str
    status: str
    replaced: bool
    def __init__(self, scope: _Optional[str] = ..., fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_by: _Optional[str] = ..., status: _Optional[str] = ..., replaced: _Optional[bool] = ...) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("fields", "who", "change_id")
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    fields: _struct_pb2.Struct
    who: str
    change_id: str
    def __init__(self, fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class RotateKeyRequest(_message.Message):
    __slots__ = ("key", "grace_seconds", "who", "change_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    grace_seconds: float
    who: str
    change_id: str
    def __init__(self, key: _Optional[str] = ..., grace_seconds: _Optional[float] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class IssueKeyResponse(_message.Message):
    __slots__ = ("api_key", "payer", "replaced", "changed")
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    PAYER_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    api_key: str
    payer: Payer
    replaced: Payer
    changed: bool
    def __init__(self, api_key: _Optional[str] = ..., payer: _Optional[_Union[Payer, _Mapping]] = ..., replaced: _Optional[_Union[Payer, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class UpdateKeyRequest(_message.Message):
    __slots__ = ("key", "fields", "who", "change_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    fields: _struct_pb2.Struct
    who: str
    change_id: str
    def __init__(self, key: _Optional[str] = ..., fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class BlockKeyRequest(_message.Message):
    __slots__ = ("key", "who", "change_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    who: str
    change_id: str
    def __init__(self, key: _Optional[str] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class UnblockKeyRequest(_message.Message):
    __slots__ = ("key", "who", "change_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    who: str
    change_id: str
    def __init__(self, key: _Optional[str] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("key", "who", "change_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    who: str
    change_id: str
    def __init__(self, key: _Optional[str] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class GetKeyRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class GetKeyResponse(_message.Message):
    __slots__ = ("payer",)
    PAYER_FIELD_NUMBER: _ClassVar[int]
    payer: Payer
    def __init__(self, payer: _Optional[_Union[Payer, _Mapping]] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("team", "user", "organization", "project", "page_size", "page_token")
    TEAM_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    team: str
    user: str
    organization: str
    project: str
    page_size: int
    page_token: str
    def __init__(self, team: _Optional[str] = ..., user: _Optional[str] = ..., organization: _Optional[str] = ..., project: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class PutPayerRequest(_message.Message):
    __slots__ = ("scope", "fields", "who", "change_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    fields: _struct_pb2.Struct
    who: str
    change_id: str
    def __init__(self, scope: _Optional[str] = ..., fields: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class GetPayerRequest(_message.Message):
    __slots__ = ("scope",)
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    def __init__(self, scope: _Optional[str] = ...) -> None: ...

class GetPayerResponse(_message.Message):
    __slots__ = ("payer",)
    PAYER_FIELD_NUMBER: _ClassVar[int]
    payer: Payer
    def __init__(self, payer: _Optional[_Union[Payer, _Mapping]] = ...) -> None: ...

class DeletePayerRequest(_message.Message):
    __slots__ = ("scope", "who", "change_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    who: str
    change_id: str
    def __init__(self, scope: _Optional[str] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class ChangePayerResponse(_message.Message):
    __slots__ = ("before", "after", "changed")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    before: Payer
    after: Payer
    changed: bool
    def __init__(self, before: _Optional[_Union[Payer, _Mapping]] = ..., after: _Optional[_Union[Payer, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class ListPayersRequest(_message.Message):
    __slots__ = ("kind", "page_size", "page_token")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    page_size: int
    page_token: str
    def __init__(self, kind: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPayersResponse(_message.Message):
    __slots__ = ("payers", "next_page_token", "total")
    PAYERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    payers: _containers.RepeatedCompositeFieldContainer[Payer]
    next_page_token: str
    total: int
    def __init__(self, payers: _Optional[_Iterable[_Union[Payer, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total: _Optional[int] = ...) -> None: ...

class ImportPayersRequest(_message.Message):
    __slots__ = ("payers", "who", "change_id")
    PAYERS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    payers: _containers.RepeatedScalarFieldContainer[str]
    who: str
    change_id: str
    def __init__(self, payers: _Optional[_Iterable[str]] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...

class ImportPayersResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class ListChangesRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListChangesResponse(_message.Message):
    __slots__ = ("changes",)
    class Change(_message.Message):
        __slots__ = ("made_at", "what", "payers", "scopes", "who", "change_id")
        MADE_AT_FIELD_NUMBER: _ClassVar[int]
        WHAT_FIELD_NUMBER: _ClassVar[int]
        PAYERS_FIELD_NUMBER: _ClassVar[int]
        SCOPES_FIELD_NUMBER: _ClassVar[int]
        WHO_FIELD_NUMBER: _ClassVar[int]
        CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
        made_at: _timestamp_pb2.Timestamp
        what: str
        payers: str
        scopes: _containers.RepeatedScalarFieldContainer[str]
        who: str
        change_id: str
        def __init__(self, made_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., what: _Optional[str] = ..., payers: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., who: _Optional[str] = ..., change_id: _Optional[str] = ...) -> None: ...
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[ListChangesResponse.Change]
    def __init__(self, changes: _Optional[_Iterable[_Union[ListChangesResponse.Change, _Mapping]]] = ...) -> None: ...
