"""Files of the Hugging Face Hub: `hf:ORGANISATION/NAME[@REVISION]`, fetched into the cache of `huggingface_hub`."""

from collections.abc import Sequence
from pathlib import Path

from ..base.errors import UserError

HUB = "hf:"
"""What the name of a place on the Hub begins with."""
FORM = "hf:ORGANISATION/NAME[@REVISION]"


def is_hub(name: object) -> bool:
    """Tell whether a name means a place on the Hub."""
    return str(name).startswith(HUB)


def fetch(name: str, *, patterns: Sequence[str], what: str, revision: str = "", network: bool = True) -> Path:
    """Return the local folder with files of a repository; the folder is named by the commit.

    Args:
      name: `hf:ORGANISATION/NAME[@REVISION]`.
      patterns: which files are wanted.
      what: the kind of thing and the field that named it, for errors: "tokenizer (config.data.tokenizer)".
      revision: a branch, tag or commit; "" = the one in `name`, or else main.
      network: whether the network may be asked; without it the files must be in the cache.

    Raises:
      UserError: no such name, huggingface_hub is not installed, or the files cannot be fetched.
    """
    repository, _, given = name.removeprefix(HUB).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"{what}: {name!r} is no name of the Hugging Face Hub; write {FORM}")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"{what}: {name!r} needs huggingface_hub, which is not installed: pip install huggingface_hub, or download "
            "the files and give their folder"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision or given or None,
            allow_patterns=list(patterns),
            local_files_only=not network,
        )
    except (OSError, ValueError) as error:  # what the library raises, offline or for a name that does not exist
        raise UserError(
            f"{what}: {name!r} cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0]}); download its "
            "files where there is a network and give their folder"
        ) from error
    return Path(folder)
