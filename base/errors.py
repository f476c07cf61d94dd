"""Errors that a user can fix: what is wrong, the value, what is allowed, and the field to change."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input; the command line prints it without a traceback and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name with the spelling closest to `name`, or None if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(what: str, got: str, known: Iterable[str]) -> UserError:
    """Build the error for an unknown name; it names the nearest known name and all known names."""
    known = sorted(known)
    hint = nearest(got, known)
    suggestion = f"; did you mean {hint!r}?" if hint else ""
    return UserError(f"unknown {what} {got!r}{suggestion} (known: {', '.join(known)})")
