"""The exceptions of extauthz. A denial is a value, never one of these.

The docstring of each class is the sentence for the person who reads the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class ExtauthzError(Exception):
    """Something failed that extauthz knows by name."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class StoreUnavailableError(ExtauthzError):
    """The store did not answer in time; nothing is known about the verb that was under way."""


class StoreRefusedError(ExtauthzError):
    """The store answers, but keeping money in it would lose some."""


class DirectoryUnavailableError(ExtauthzError):
    """The directory did not answer in time, or not with what can be read; nothing new is known about anybody."""


class NoBooksError(ExtauthzError):
    """The books cannot be looked at."""


class HoldRejectedError(ExtauthzError):
    """A hold was not signed with this store's key, or is not a hold at all; it is ignored."""


class ExtraMissingError(ExtauthzError):
    """Something is asked for that needs a part of extauthz which is not installed."""


class TooManyWatchersError(ExtauthzError):
    """As many readers watch decisions as one server has room for."""


class UnclearError(ExtauthzError):
    """What an operator asks for cannot be understood."""


class AbsentError(ExtauthzError):
    """What an operator asks for is not there."""


class ImpossibleError(ExtauthzError):
    """What an operator asks for cannot be done as things are."""


class BusyError(ExtauthzError):
    """So much of this kind is under way that an operator has to ask again later."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a configuration file: where it stands and what to do about it."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class ConfigError(ExtauthzError):
    """The configuration cannot be used; every mistake is listed with its line."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes
