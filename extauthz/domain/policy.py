"""The rules that an operator chooses, and the reasons that a decision gives."""

from __future__ import annotations

from enum import StrEnum


class ModelsPolicy(StrEnum):
    """What model discovery answers once a budget is exhausted (`budget_exceeded_models_policy`)."""

    BLOCKED = "blocked"
    ALL = "all"
    FREE_ONLY = "free_only"


class Admission(StrEnum):
    """When an inference passes: while anything is available, or only when its whole maximum fits."""

    UNTIL_EXHAUSTED = "until_exhausted"
    STRICT = "strict"


class StoreFailure(StrEnum):
    """What a paid inference gets while the store does not answer."""

    DENY = "deny"
    ALLOW = "allow"
    DEFER = "defer"


class DirectoryFailure(StrEnum):
    """What is believed of a payer whose record is old, while the directory does not answer: nothing, or the record."""

    DENY = "deny"
    STALE = "stale"


class OtherRoutes(StrEnum):
    """What happens to requests that are neither discovery nor inference nor info."""

    PASS = "pass"  # noqa: S105 - a verb here
    AUTHENTICATE = "authenticate"
    DENY = "deny"


class OnAbort(StrEnum):
    """What is booked for a stream that broke off."""

    DELIVERED = "delivered"
    RESERVED = "reserved"
    INPUT = "input"
    ZERO = "zero"


class OnMissingUsage(StrEnum):
    """What is booked for a finished answer that reported no usage."""

    ESTIMATE = "estimate"
    DELIVERED = "delivered"
    ZERO = "zero"


class OnExpiry(StrEnum):
    """What is booked when a lease runs out and nothing was heard of the request at all."""

    RELEASE = "release"
    CHARGE = "charge"
