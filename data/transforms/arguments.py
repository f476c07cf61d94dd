"""Checks of the arguments of operations, and whole numbers out of uniform ones. No tensorflow."""


def at_least(least: int, **given: int) -> None:
    """Check the named arguments.

    Raises:
      ValueError: one is a number below `least`.
    """
    for name, value in given.items():
        if isinstance(value, (int, float)) and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def probability(**given: float) -> None:
    """Check the named arguments.

    Raises:
      ValueError: one is a number outside 0 to 1.
    """
    for name, value in given.items():
        if isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability between 0 and 1, got {value}")


def between(low: float, high: float, uniform: float) -> float:
    """Return a number in [low, high] from a number in [0, 1)."""
    return low + (high - low) * float(uniform)


def below(bound: int, uniform: float) -> int:
    """Return a whole number in [0, bound) from a number in [0, 1)."""
    return min(int(float(uniform) * bound), bound - 1)


def seed_of(uniform: float) -> int:
    """Return a seed from a number in [0, 1): its 24 bits."""
    return int(float(uniform) * 2**24)
