"""Bodies that an upstream compressed although nobody asked for it."""

from __future__ import annotations

import zlib

# gzip's header is found by zlib itself, and so is zlib's own, which HTTP calls deflate.
_ANY_HEADER = zlib.MAX_WBITS | 32
_READABLE = frozenset({"gzip", "x-gzip", "deflate"})

PLAIN = frozenset({"", "identity"})


def decoded(body: bytes, encoding: str, bytes_max: int) -> bytes | None:
    """Decompress a body; None when its encoding is not known here, it is cut off, or it has more than `bytes_max`."""
    encoding = encoding.strip().casefold()
    if encoding in PLAIN:
        return body
    if encoding not in _READABLE:
        return None
    stream = zlib.decompressobj(_ANY_HEADER)
    try:
        plain = stream.decompress(body, bytes_max + 1)
    except zlib.error:
        return None
    return plain if stream.eof and len(plain) <= bytes_max else None
