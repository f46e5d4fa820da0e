"""Bodies that an upstream compressed although nobody asked for it."""

import gzip
import zlib

import pytest

from extauthz.adapters.encodings import decoded

TEXT = b'{"object":"list","data":[]}' * 100
MANY = 1024 * 1024
# Workers of one test run name tests by their parameters, so the time is left out of these.
GZIPPED = gzip.compress(TEXT, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", GZIPPED),
        (" GZip ", GZIPPED),
        ("x-gzip", GZIPPED),
        ("deflate", zlib.compress(TEXT)),
    ],
)
def test_what_is_known_is_decompressed(encoding: str, body: bytes) -> None:
    """In the encodings that every language brings."""
    assert TEXT == decoded(body, encoding, MANY)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        pytest.param("br", TEXT, id="unknown"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(TEXT)), id="twice"),
        pytest.param("gzip", TEXT, id="not compressed"),
        pytest.param("gzip", b"", id="nothing"),
        pytest.param("gzip", gzip.compress(TEXT)[:-1], id="cut off"),
        pytest.param("gzip", gzip.compress(b"\0" * (MANY + 1)), id="a bomb"),
    ],
)
def test_what_cannot_be_read_is_nothing(encoding: str, body: bytes) -> None:
    """However much a body would become, no more than the maximum is made of it."""
    assert decoded(body, encoding, MANY) is None


def test_the_maximum_itself_fits() -> None:
    """To the byte."""
    assert MANY == len(decoded(gzip.compress(b"\0" * MANY), "gzip", MANY) or b"")
