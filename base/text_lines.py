"""Text files that users write, line by line."""

from pathlib import Path

from .errors import UserError


def text_lines(path: str | Path, *, flag: str) -> list[str]:
    """Return the lines of a UTF-8 file, without their ends; a byte order mark at its beginning is no part of them.

    A line ends at a line feed alone: other separators of Unicode may stand in JSON strings.

    Args:
      path: of the file.
      flag: the flag or field that names it, for messages.

    Raises:
      UserError: the file cannot be read, or is no UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # every end of a line becomes \n
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag}: {path} cannot be read as UTF-8 text: {error}; save it as UTF-8") from error
    return text.removesuffix("\n").split("\n") if text else []
