"""A multipart/form-data body, read strictly.

Parsers of forms differ in what they forgive: another boundary, a bare line feed, a name in two parameters, a quote
behind a backslash. So a form is taken only as browsers, curl and the official SDKs write it (RFC 7578), and whatever
somebody could take apart in another way is refused. The bytes of files are counted and never looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extauthz.domain.ask import RefusedBodyError
from extauthz.domain.document import Document, Json, folded

PARTS_MAX = 128
PART_HEADERS_MAX = 4
PART_HEAD_BYTES_MAX = 2048
# A field is text for the model at most; what is longer comes as a file.
NUMBER_DIGITS_MAX = 10

_CONTENT_TYPE = re.compile(
    r"multipart/form-data\s*;\s*boundary=(?:\"([\w'()+./:=?-]{1,70})\"|([\w'+.-]{1,70}))\s*", re.ASCII | re.IGNORECASE
)
# Control characters, quotes and backslashes end a name early for some parsers.
_QUOTED = rb'"([^"\\\x00-\x1f\x7f]*)"'
_DISPOSITION = re.compile(
    rb"form-data; *name=" + _QUOTED + rb"(?:; *(filename)=" + _QUOTED + rb")?(; *filename\*=[!#-+\--:<-~]+)?",
    re.IGNORECASE,
)
_HEADER = re.compile(rb"([A-Za-z-]{1,64}):[ \t]*([^\x00-\x1f\x7f]*)")
_FIELD_TYPES = re.compile(rb"(?:text/plain|application/json)(?:; *charset=\"?utf-8\"?)?", re.IGNORECASE)
_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})

_NOT_A_FORM = (
    "The form cannot be read in one way only: send it as multipart/form-data (RFC 7578) with one boundary, "
    "CRLF at the end of lines, and one quoted `name` for each part."
)

_NUMBERS = frozenset({"n", "seconds", "max_tokens", "max_completion_tokens", "max_output_tokens", "best_of"})
_FLAGS = frozenset({"stream"})


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a form; `cut` when the body ends in it."""

    name: str
    is_file: bool
    content: bytes
    cut: bool


def is_form(content_type: str | None) -> bool:
    """Tell whether a body comes as a form with files."""
    return content_type is not None and content_type.strip().casefold().startswith("multipart/form-data")


def read_form(raw: bytes, *, truncated: bool, content_type: str, steering: Mapping[str, str]) -> Document:
    """Read a form's fields as a document: numbers and flags among `steering` keys are values, all else is text.

    A `steering` key must stand once, exactly so, and be no file.
    """
    named = _CONTENT_TYPE.fullmatch(content_type.strip())
    if named is None:
        raise RefusedBodyError(_NOT_A_FORM)
    boundary = (named[1] or named[2]).encode()
    fields: Json = {}
    settled: Json = {}
    files = file_bytes = 0
    for part in _parts(raw, b"--" + boundary, truncated=truncated):
        if part.is_file:
            if (spelling := _steering(part.name, steering)) is not None:
                raise RefusedBodyError(f"The field `{spelling}` must be a text, not a file.")
            files += 1
            file_bytes += len(part.content)
            continue
        key = part.name
        spelling = _steering(key, steering)
        if spelling is not None and (key != spelling or key in fields):
            raise RefusedBodyError(f"Write the field `{spelling}` exactly so, and once.")
        value = _value(key, part)
        fields[_unused(key, fields)] = value
        if not part.cut:
            settled[key] = value
    return Document(fields, settled, len(raw), files, file_bytes)


def _unused(key: str, fields: Json) -> str:
    """Give a field that may stand several times another key each time, which no form can write: all texts count."""
    return key if key not in fields else f"{key}\0{len(fields)}"


def _steering(name: str, steering: Mapping[str, str]) -> str | None:
    """Give the steering field that a name could be taken for, `model[]` included."""
    return steering.get(folded(name.partition("[")[0]))


def _value(key: str, part: _Part) -> object:
    try:
        text = part.content.decode()
    except UnicodeDecodeError as error:
        # Only the last letter may be cut.
        if not part.cut or error.start < len(part.content) - 3:
            raise RefusedBodyError("The fields of a form must be UTF-8.") from None
        text = part.content[: error.start].decode()
    if part.cut:
        return text
    if key in _NUMBERS:
        return int(text) if text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX else text
    if key in _FLAGS:
        return {"true": True, "false": False}.get(text.casefold(), text)
    return text


def _parts(raw: bytes, delimiter: bytes, *, truncated: bool) -> Iterator[_Part]:
    """Take a form apart; of a truncated one the last part may be cut."""
    sections = (b"\r\n" + raw).split(b"\r\n" + delimiter)
    closed = len(sections) > 1 and sections[-1] in (b"--", b"--\r\n")
    if sections[0] or not (closed or truncated) or len(sections) - 2 > PARTS_MAX:
        raise RefusedBodyError(_NOT_A_FORM)
    inner = sections[1:-1] if closed else sections[1:]
    if not inner and not truncated:
        raise RefusedBodyError(_NOT_A_FORM)
    for place, section in enumerate(inner):
        cut = truncated and not closed and place == len(inner) - 1
        if delimiter in section:
            # A line that some parsers end without a carriage return.
            raise RefusedBodyError(_NOT_A_FORM)
        head, found, content = section.partition(b"\r\n\r\n")
        if cut and not found:
            # Nothing is known of a part whose head is cut.
            return
        if not found or not head.startswith(b"\r\n") or len(head) > PART_HEAD_BYTES_MAX:
            raise RefusedBodyError(_NOT_A_FORM)
        yield _part(head[2:], content, cut=cut)


def _part(head: bytes, content: bytes, *, cut: bool) -> _Part:
    headers: dict[bytes, bytes] = {}
    lines = head.split(b"\r\n")
    if len(lines) > PART_HEADERS_MAX:
        raise RefusedBodyError(_NOT_A_FORM)
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise RefusedBodyError(_NOT_A_FORM)
        headers[found[1].lower()] = found[2].strip()
    disposition = _DISPOSITION.fullmatch(headers.pop(b"content-disposition", b""))
    media_type = headers.pop(b"content-type", None)
    if disposition is None or headers.pop(b"content-transfer-encoding", b"binary").lower() not in _ENCODINGS:
        raise RefusedBodyError(_NOT_A_FORM)
    if headers.keys() - {b"content-length"}:
        raise RefusedBodyError(_NOT_A_FORM)
    is_file = disposition[2] is not None or disposition[4] is not None
    if not is_file and media_type is not None and not _FIELD_TYPES.fullmatch(media_type):
        raise RefusedBodyError(_NOT_A_FORM)
    try:
        return _Part(disposition[1].decode(), is_file, content, cut)
    except UnicodeDecodeError:
        raise RefusedBodyError(_NOT_A_FORM) from None
