"""Native libraries without what only debuggers read: some wheels carry ten times their code for these.

Loaders go by a file's program headers (System V ABI, chapter 5). What lies behind the last segment of them, symbols and
sections for linkers and debuggers, is never loaded, so a library can end there.
"""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"

# Of the header: 64 bits, little-endian, which all machines are that images are made for.
_CLASS64_LITTLE = b"\x02\x01"
# Elf64_Ehdr behind e_ident: type, machine, version, entry, offsets of program and section headers, flags, own size,
# then size and number of each of the two kinds, and which section has the names.
_HEADER = struct.Struct("<HHIQQQIHHHHHH")
_IDENT_BYTES = 16
# Elf64_Phdr: type, flags, offset in the file, two addresses, size in the file, size in memory, alignment.
_SEGMENT = struct.Struct("<IIQQQQQQ")


def without_symbols(blob: bytes) -> bytes:
    """Give an ELF file up to the end of what is loaded; any other file as it is."""
    if not blob.startswith(MAGIC + _CLASS64_LITTLE):
        return blob
    *first, segments_at, _, flags, size, segment_size, segments, section_size, _, _ = _HEADER.unpack_from(
        blob, _IDENT_BYTES
    )
    end = segments_at + segments * segment_size
    for index in range(segments):
        _, _, offset, _, _, in_file, _, _ = _SEGMENT.unpack_from(blob, segments_at + index * segment_size)
        end = max(end, offset + in_file)
    header = _HEADER.pack(*first, segments_at, 0, flags, size, segment_size, segments, section_size, 0, 0)
    return blob[:_IDENT_BYTES] + header + blob[_IDENT_BYTES + _HEADER.size : end]
