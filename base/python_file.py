"""Python files that a user names: a config, a task. They are imported by path, and errors in them name their lines."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from .errors import UserError


def module_of(file: Path, *, kind: str) -> ModuleType:
    """Import a file as a module of its own.

    Args:
      file: the path.
      kind: what it holds, such as "config": part of the module's name.
    """
    name = f"twinreel_{kind}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the module of a class
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def naming_errors_in(file: Path, *, what: str) -> Iterator[None]:
    """Turn an error inside a file into a UserError that names the file and the line.

    Args:
      file: the path.
      what: it is called so in messages, such as "config 'demo'".
    """
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        where = f"{error.filename or file}:{error.lineno}"
        raise UserError(f"{what} is not valid Python: {where}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename) == file]
        where = f"{own[-1].filename}:{own[-1].lineno}: `{own[-1].line}`" if own else str(file)
        raise UserError(f"{what} failed at {where}: {type(error).__name__}: {error}") from error
