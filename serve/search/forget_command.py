"""The command line of `twinreel forget`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import UserError
from ...base.parser import Parser

if TYPE_CHECKING:
    from .forget import Alike

DESCRIPTION = """Delete from an index all files that show the same person or scene as an example.

  twinreel forget library ann.mp4                                   shows which files would be deleted
  twinreel forget library ann.mp4 --keep ~/Videos/not_ann.mp4 --yes deletes the others
  twinreel forget library ann.jpg --faces yunet.onnx sface.onnx     by faces: reads all files again
  twinreel forget library --log                                     what was deleted, and when

EXAMPLE is a film or a picture. Without --faces, files with a moment whose embedding is near to one of its moments are
found: the same scene, not the same person in another one. With --faces, the networks YuNet and SFace of OpenCV, from
local files, compare the faces in one picture a second of every file with each face of the example.

With --yes, everything that the index has of these files is deleted: rows, transcripts, thumbnails, the embeddings of
all models, and the approximate indexes with them. The videos themselves stay where they are, and are not indexed again
under any name. The log has time, SHA-256, size, score and count of moments of each; no name and nothing of the content.
Exported cuts, Parquet files and statistics of `monitor` are not part of the index: delete them yourself."""
_ABOVE = 0.9


def main(argv: list[str]) -> int:
    """Run the verb."""
    args, _ = _parser().parse(argv)
    if args.log or args.readmit:
        return _log(args)
    if not args.examples:
        raise UserError("nothing to look for; give EXAMPLE, a film or a picture")
    found, failed, above = _found(args)
    if args.yes:  # also where nothing is found: an earlier deletion may have been killed
        _delete(Path(args.index), found, way="face" if args.faces else "embedding")
    result = {
        "index": args.index,
        "way": "face" if args.faces else "embedding",
        "above": above,
        "deleted": bool(args.yes and found),
        "files": [dataclasses.asdict(one) for one in found],
        "not_read": failed,
    }
    print(json.dumps(result)) if args.json else _print(result, yes=args.yes)
    return 0


def _parser() -> Parser:
    parser = Parser(verb="forget", description=DESCRIPTION)
    parser.add_argument("index", metavar="INDEX", help="the folder of `twinreel index`")
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help="films or pictures")
    parser.add_argument(
        "--faces", nargs=2, default=(), metavar=("YUNET", "SFACE"), help="compare faces, by these two ONNX files"
    )
    parser.add_argument(
        "--above", type=float, metavar="COSINE", help="how near is near enough (0.9; 0.363 of faces, OpenCV's value)"
    )
    parser.add_argument("--keep", action="append", default=[], metavar="FILE", help="do not delete this one")
    parser.add_argument("--model", default="", help="name of a model of the index, or where it lies now")
    parser.add_argument("--yes", action="store_true", help="delete; without it, nothing is changed")
    parser.add_argument("--log", action="store_true", help="print what was deleted, do nothing else")
    parser.add_argument(
        "--readmit", default="", metavar="SHA256", help="let a deleted file be indexed again, do nothing else"
    )
    parser.add_json()
    return parser


def _found(args: Any) -> "tuple[list[Alike], list[str], float]":
    """Return the files that are near to the examples, those that could not be read, and how near they had to be."""
    from ...data.media.faces import SAME_PERSON, FaceFeatures
    from .collection import Collection
    from .command import model_of
    from .forget import alike_by_embedding, alike_by_face, without
    from .opened import open_for

    above = args.above if args.above is not None else (SAME_PERSON if args.faces else _ABOVE)
    if not -1 <= above <= 1:
        raise UserError(f"--above is {above:g}; wanted a cosine from -1 to 1")
    failed: list[str] = []
    kept = [str(Path(path).expanduser().resolve()) for path in args.keep]
    name, where = model_of(args)
    with Collection(Path(args.index), model=name) as collection:
        if args.faces:
            faces = FaceFeatures(args.faces[0], recogniser=args.faces[1])
            found, failed = _by_face(collection, args=args, above=above, faces=faces, look=alike_by_face)
        else:
            opened = open_for(collection, given=where)
            found = alike_by_embedding(collection, examples=args.examples, opened=opened, above=above)
        return without(found, kept=kept), failed, above


def _by_face(collection: Any, *, args: Any, above: float, faces: Any, look: Any) -> Any:
    """Compare the faces of all files, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    total = collection.connection.execute("SELECT COUNT(*) FROM files").fetchone()[0]
    with Progress(console=Console(stderr=True), transient=True, disable=args.json) as bar:
        task = bar.add_task("look at faces", total=total)
        given = {"examples": args.examples, "faces": faces, "above": above}
        return look(collection, tick=lambda: bar.advance(task), **given)


def _delete(folder: Path, found: "list[Alike]", *, way: str) -> None:
    from ..index.forgetting import forget_files

    with _store(folder) as store:
        forget_files(store, {one.file: one.score for one in found}, way=way)


def _store(folder: Path) -> Any:
    """Open an index for writing, with its own settings."""
    from ..index import database
    from ..index.store import Store

    connection = database.connect(folder)
    try:
        settings = database.read_settings(connection)
    finally:
        connection.close()
    return Store(folder, settings=settings)


def _log(args: Any) -> int:
    """Print the log, or remove a file from it."""
    from ..index import database
    from ..index.forgetting import read_forgotten, readmit

    folder = Path(args.index)
    if args.readmit:
        with _store(folder) as store:
            count = readmit(store, args.readmit)
        if not count:
            raise UserError(f"--readmit {args.readmit}: no such SHA-256 in the log; `twinreel forget {folder} --log`")
        print(f"{folder}: the next run of `twinreel index` takes this file again", file=sys.stderr)
        return 0
    connection = database.connect(folder)
    try:
        rows = [dataclasses.asdict(one) for one in read_forgotten(connection)]
    finally:
        connection.close()
    if args.json:
        print(json.dumps({"forgotten": rows}))
    for row in rows if not args.json else ():
        window = "" if row["start_s"] is None else f" from {row['start_s']:g} s"
        print(f"{row['at']}  {row['sha256']}{window}  {row['moments']:,} moments, {row['way']} {row['score']:.3f}")
    return 0


def _print(result: dict[str, Any], *, yes: bool) -> None:
    files = result["files"]
    for one in files:
        print(f"{one['score']:.3f}  {one['path']}")
    for line in result["not_read"]:
        print(f"not read: {line}", file=sys.stderr)
    if not files:
        print(f"no file is near to the example ({result['way']}, {result['above']:g} and above)", file=sys.stderr)
        return
    count = f"{len(files):,} files with {sum(one['moments'] for one in files):,} moments"
    done = "deleted" if yes else "would be deleted; repeat the command with --yes"
    print(f"{result['index']}: {count} {done}", file=sys.stderr)
