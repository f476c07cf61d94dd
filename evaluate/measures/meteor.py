"""METEOR 1.5 of captions, by the Java program that its authors publish; the user names the jar."""

import hashlib
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ...base.errors import UserError
from .checks import check_same_length

_MEMORY = "-Xmx2G"
_LANGUAGE = ("-l", "en", "-norm")  # as pycocoevalcap calls it
_SEPARATOR = "|||"
_LONGEST_TAIL = 500  # characters of Java's complaints that an error repeats


class Meteor:
    """The running Java program; a context manager.

    METEOR (Denkowski and Lavie 2014) aligns captions by stems, synonyms and paraphrases, whose tables lie next to the
    jar. There is no other implementation with these tables, so none replaces it.
    """

    def __init__(self, jar: Path, *, java: str = "java"):
        """Find the jar and Java, and ask Java for its version; the program starts on entry.

        Args:
          jar: `meteor-1.5.jar`, with its folder `data` next to it.
          java: the command, or its path.

        Raises:
          UserError: no such jar, no such command, or one that does not run.
        """
        self.jar, found = Path(jar).resolve(), shutil.which(java)
        if not self.jar.is_file():
            raise UserError(f"--meteor {str(jar)!r} is no file; give meteor-1.5.jar of METEOR 1.5")
        if found is None:
            raise UserError(
                f"--meteor needs Java, and the command {java!r} (--java) is not found; install a Java runtime, or "
                "leave out --meteor: no other figure takes its place"
            )
        self._java = found
        told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
        lines = (told.stderr + told.stdout).strip().splitlines()
        if told.returncode or not lines:
            raise UserError(f"'{found} -version' ends with status {told.returncode}; give a Java runtime with --java")
        with self.jar.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.about = {"jar": self.jar.name, "sha256": digest, "java": lines[0]}
        """Name and SHA-256 of the jar, and the version of Java, for protocols."""
        self._process: subprocess.Popen[str] | None = None
        self._complaints: IO[str] | None = None

    def __enter__(self) -> "Meteor":
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        command = [self._java, "-jar", _MEMORY, str(self.jar), "-", "-", "-stdio", *_LANGUAGE]
        self._process = subprocess.Popen(
            command,
            cwd=self.jar.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None and self._complaints is not None
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def scores(self, candidates: Sequence[str], *, references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Return METEOR of captions against their references.

        Args:
          candidates: one tokenised caption per clip.
          references: of each clip, at least one tokenised reference.

        Returns:
          `corpus`, a fraction, from the counts of all captions; `per_clip`, a fraction of each.

        Raises:
          UserError: lists that do not fit together, or a program that ends or answers with something else.
        """
        check_same_length(candidates=candidates, references=references)
        counts = []
        for row, (candidate, given) in enumerate(zip(candidates, references, strict=True)):
            if isinstance(given, str) or not len(given):
                raise UserError(f"'references' of clip {row} is {given!r}; wanted a list of at least one reference")
            self._tell("SCORE", *(_field(text) for text in (*given, candidate)))
            counts.append(self._numbers())
        self._tell("EVAL", *counts)
        own = [self._number() for _ in counts]
        return {"corpus": self._number(), "per_clip": own}

    def _tell(self, *fields: str) -> None:
        assert self._process is not None and self._process.stdin is not None, "inside of `with`"
        try:
            self._process.stdin.write(f" {_SEPARATOR} ".join(fields) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _numbers(self) -> str:
        """The next line that the program writes, which has numbers only."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        try:
            good = bool(line.split()) and all(math.isfinite(float(word)) for word in line.split())
        except ValueError:
            good = False
        if not good:
            raise UserError(f"{self.jar.name} answers {line.strip()[:80]!r}; wanted numbers, so it is not METEOR 1.5")
        return line.strip()

    def _number(self) -> float:
        line = self._numbers()
        if len(line.split()) != 1:
            raise UserError(f"{self.jar.name} answers {line[:80]!r}, wanted one number; so it is not METEOR 1.5")
        return float(line)

    def _ended(self) -> UserError:
        assert self._process is not None and self._complaints is not None
        status = self._process.wait()
        self._complaints.seek(0)
        tail = self._complaints.read().strip()[-_LONGEST_TAIL:]
        return UserError(f"{self.jar.name} ended with status {status}: {tail or 'it says nothing'}")


def _field(text: str) -> str:
    r"""Return a text without what separates fields and lines.

    >>> _field("a  dog ||| runs\n")
    'a dog runs'
    """
    return " ".join(text.replace(_SEPARATOR, " ").split())
