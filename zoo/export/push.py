"""An export on the Hugging Face Hub."""

import re
from pathlib import Path

from ...base.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_name(name: str) -> None:
    """Check the name of a repository.

    Raises:
      UserError: it is not ORGANISATION/NAME.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"--push {name!r} is no name of the Hugging Face Hub; write ORGANISATION/NAME")


def listing(folder: Path) -> list[tuple[str, int]]:
    """Return the files that would be uploaded: path in the repository and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def push(folder: Path, *, name: str, private: bool) -> str:
    """Upload a folder as one commit; make the repository if it is not there.

    Args:
      folder: of an export.
      name: ORGANISATION/NAME.
      private: a new repository is visible to its owners alone.

    Returns:
      The address of the commit.

    Raises:
      UserError: huggingface_hub is not installed, there is no network or no permission.
    """
    check_name(name)
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("--push needs huggingface_hub, which is not installed: pip install huggingface_hub") from error
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        made = hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Export from twinreel")
    except Exception as error:  # the library raises its own errors, those of its HTTP client, and ValueError
        why = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{name} was not uploaded ({type(error).__name__}: {why}). The export is whole in {folder}; log in with "
            "`hf auth login`, then upload it where there is a network: "
            f"`hf upload {name} {folder}`"
        ) from error
    return str(made.commit_url)
