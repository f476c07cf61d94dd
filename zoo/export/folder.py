"""The folder of an export: whole or absent."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...base.errors import UserError

CARD = "README.md"
MARK = "`twinreel export`"
"""Stands in every card: what `--overwrite` may replace."""


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that a folder may be written.

    Raises:
      UserError: it is a file or not empty; with `overwrite`, it holds something else than an export.
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
