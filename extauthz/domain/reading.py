"""How much of a body a model reads: bytes of text, and the pictures, sounds and files among them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from extauthz.domain.document import Document
from extauthz.domain.value import value

# Counting text looks at so many values (about 4 ms); a body with more is counted by its length.
VALUES_MAX = 20_000
# What a value that is no text counts: the numbers of a prompt given as tokens are one token each.
TOKEN_BYTES = 3
# A sound, film or document counts as one picture more for so many of its bytes: 12 s of speech at 32 kbit/s, or a page.
BYTES_PER_PICTURE = 50_000

# Pictures, sounds and files of a conversation are not text. Elsewhere, in a tool's schema say, the same string is.
_CONVERSATION = frozenset({"content", "contents", "input", "messages", "requests", "systemInstruction", "system"})
_DATA_URL_KEYS = frozenset({"url", "image_url", "file_data"})
_LINK_KEYS = frozenset({"url", "image_url", "file_uri", "fileUri"})
_FILE_KEYS = frozenset({"file_id"})
_LINK = re.compile(r"(?:https?|gs)://\S{1,2048}", re.ASCII)
_BASE64 = r"[A-Za-z0-9+/=_-]*+"
_DATA_URL = re.compile(rf"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[\w.+-]+)*;base64,({_BASE64})", re.ASCII)
_ENCODED = re.compile(_BASE64, re.ASCII)
_MEDIA_TYPE_KEYS = ("media_type", "mimeType", "mime_type")


@value
class Reading:
    """Bytes of text, and how many pictures everything else counts as."""

    text_bytes: int
    images: int


def reading_of(document: Document) -> Reading:
    """Count the bytes of everything that may be text for the model, and what is a picture, sound or file instead.

    Keys count too: those of a tool's schema are read by the model, and the others are few.
    """
    text_bytes = seen = 0
    images = document.files
    for conversation in (False, True):
        waiting = [value for key, value in document.seen.items() if (key in _CONVERSATION) is conversation]
        while waiting:
            value = waiting.pop()
            seen += 1
            if seen > VALUES_MAX:
                return Reading(document.size - document.file_bytes, images)
            if isinstance(value, str):
                text_bytes += utf8_bytes(value)
            elif isinstance(value, list):
                waiting.extend(value)
            elif isinstance(value, dict):
                for key, item in value.items():
                    pictures = _pictures(key, item) if conversation else 0
                    images += pictures
                    if not pictures:
                        text_bytes += utf8_bytes(key)
                        waiting.append(item)
            else:
                text_bytes += TOKEN_BYTES
    return Reading(text_bytes, images)


def _pictures(key: str, item: object) -> int:
    """Tell how many pictures an item of a conversation counts as, 0 for what is text."""
    match item:
        case str() if key in _DATA_URL_KEYS and (found := _DATA_URL.fullmatch(item)):
            return _worth(found[1], len(found[2]))
        case str():
            return int((key in _LINK_KEYS and _LINK.fullmatch(item) is not None) or key in _FILE_KEYS)
        case {"data": str(data), **wrapping} if _ENCODED.fullmatch(data):
            named = next((wrapping[name] for name in _MEDIA_TYPE_KEYS if name in wrapping), None)
            media_type = "audio/*" if key == "input_audio" else named
            return _worth(media_type, len(data)) if isinstance(media_type, str) else 0
        case _:
            return 0


def _worth(media_type: str, encoded_bytes: int) -> int:
    """Tell how many pictures a medium counts as; a text in a wrapping stays text."""
    kind = media_type.casefold().partition("/")[0]
    match kind:
        case "text":
            return 0
        case "image":
            return 1
        case _:
            return 1 + encoded_bytes // BYTES_PER_PICTURE


def characters_of(value: object) -> int:
    """Count the characters of a text that is read aloud."""
    return len(value) if isinstance(value, str) else 0


def texts_in(value: object) -> Iterator[str]:
    """Give a text, or those of a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (text for text in value if isinstance(text, str))


def utf8_bytes(text: str) -> int:
    """Tell how many bytes a text has."""
    return len(text) if text.isascii() else len(text.encode())
