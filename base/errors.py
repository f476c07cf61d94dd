"""Errors that a user can mend: what, got, wanted, and which field to change."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error in what the user gave; the command line prints it without a traceback and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled most like `name`, or None if none comes near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(what: str, got: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a table: names it, the nearest known one, and all of them."""
    known = sorted(known)
    hint = nearest(got, known)
    suggestion = f"; did you mean {hint!r}?" if hint else ""
    return UserError(f"unknown {what} {got!r}{suggestion} (known: {', '.join(known)})")
