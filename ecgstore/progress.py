"""How long work tells how far it has come; the command line draws it, the library only counts."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """What a long call reports to."""

    def start(self, total: int, unit: str) -> None:
        """Begin a stage of ``total`` units, named in the plural, such as ``records``."""

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        """Count units done, and among them those rejected or skipped."""

    def tell(self, text: str) -> None:
        """Show a short text beside what is counted, in place of the last, such as the loss."""

    def note(self, message: str) -> None:
        """Tell the user something once, such as a licence."""


class Silent:
    """A progress that says nothing: the default of every library call."""

    def start(self, total: int, unit: str) -> None:
        """Do nothing."""

    def advance(self, done: int = 1, *, rejected: int = 0) -> None:
        """Do nothing."""

    def tell(self, text: str) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""
