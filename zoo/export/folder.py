"""The folder of an export: whole or absent."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...base.errors import UserError

CARD = "README.md"
FILES = "## Files"
"""Heading of the files of an export in its card: `- `NAME`` on a line each."""
MARK = "`twinreel export`"
"""Stands in every card: what `--overwrite` may replace."""


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that a folder may be written.

    Raises:
      UserError: it is a file or not empty; with `overwrite`, it holds something else than the files of an export.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out {out} is not empty; give another folder, or --overwrite to replace it")
    card = out / CARD
    if not card.is_file() or MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"--out {out} holds other files than those of an export ({CARD} does not say {MARK}), so --overwrite does "
            "not remove it; give another folder, or remove it yourself"
        )
    own = _listed(card.read_text(encoding="utf-8", errors="replace"))
    others = sorted({path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()} - own)
    if others:
        raise UserError(
            f"--out {out} holds {others[0]} ({len(others)} such), which the export there did not write, and "
            "--overwrite would remove it; move it away first, or give another folder"
        )


def files_section(folder: Path) -> str:
    """Return the section of the card that lists the files of an export, the card included."""
    names = sorted({CARD, *(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())})
    return "\n".join([FILES, "", *(f"- `{name}`" for name in names)])


def _listed(card: str) -> set[str]:
    """Return the names that a card lists."""
    lines = card.partition(f"\n{FILES}\n")[2].lstrip("\n").split("\n\n", 1)[0].splitlines()
    return {line.removeprefix("- `").removesuffix("`") for line in lines}


@contextlib.contextmanager
def whole_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, which takes its place at the end, and only if nothing is raised.

    Raises:
      UserError: as `check_out`.
    """
    check_out(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp's folder is for its owner alone
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            out.replace(old)
            partial.replace(out)
            shutil.rmtree(old)
        else:
            partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
