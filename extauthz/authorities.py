"""Whom those are trusted by that are reached by TLS: an authority that a configuration names, or the system's."""

from __future__ import annotations

import ssl
from pathlib import Path

# Python 3.13 takes no authority that lacks extensions of RFC 5280; those of clusters and houses often do.
NOT_ASKED = ssl.VERIFY_X509_STRICT


def trusting(authority: Path | str | None) -> ssl.SSLContext:
    """Make what a client trusts by: a file of certificates, None for the system's. Raises OSError, ssl's own too."""
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags &= ~NOT_ASKED
    return context
