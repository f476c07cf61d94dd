"""The command line of `twinreel describe`."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.chat import Chat, add_flags, of_flags
from ...base.errors import UserError
from ...base.parser import Parser
from ...data.language.recogniser import RECOGNISERS

if TYPE_CHECKING:
    from .compose import Described
    from .gather import Sources

_DESCRIPTION = """\
Describe clips, or answer a question about them, with a language model that receives what a dual tower finds in them.

  twinreel describe MODEL clip.mp4 --captions captions.txt --endpoint http://127.0.0.1:8080/v1
  twinreel describe MODEL *.mp4 --captions data/mine:train --classes classes.txt --out runs/described
  twinreel describe MODEL talk.mp4 --index library --recogniser pocketsphinx --question "What is it about?"
  twinreel describe MODEL clip.mp4 --captions captions.txt --evidence_only     # what would be sent

The nearest captions of a bank, the nearest class names, the files of an index that look alike, and what is said
(subtitles next to the file, or a recogniser) are put to any endpoint with OpenAI's chat completions: llama.cpp, vLLM or
Ollama on your machine, or a hosted model. No model is trained for it (Socratic models, Zeng et al. 2022). The language
model sees no picture: it can say no more than the texts that it is given, and may err with them.

Texts alone are sent, never pictures or sound. The key is taken from the environment variable of --key_env and is
written nowhere. OUT gets descriptions.jsonl (each text with its evidence and scores) and index.html; answers are kept
in OUT/answers.journal, so that a killed run resumes without asking twice.
"""


def main(argv: list[str]) -> int:
    """Run `twinreel describe MODEL FILE ... [flags]`."""
    args, _ = _parser().parse(argv)
    chat = (
        None if args.evidence_only else Chat(of_flags(args))
    )  # a missing endpoint is reported before anything is read
    for file in args.files:
        if not Path(file).is_file():
            raise UserError(f"{file!r} does not exist; give media files")
    from .compose import Described, compose

    found: list[Described] = []
    with contextlib.ExitStack() as stack:
        sources = _sources(args, stack=stack)
        journal = _journal(args.out, stack=stack)
        for file in _progress(args.files, hidden=args.json):
            evidence = sources.gather(file)
            if chat is None:
                found.append(Described(evidence=evidence, question=args.question))
            else:
                found.append(compose(evidence, chat=chat, question=args.question, journal=journal))
            if args.json:
                print(json.dumps(found[-1].to_json(), ensure_ascii=False), flush=True)
    if args.out:
        _write(args, found)
    if not args.json:
        _print(found, evidence_only=args.evidence_only)
    return 0


def _parser() -> Parser:
    parser = Parser(verb="describe", description=_DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint, a bundle or public weights")
    parser.add_argument("files", nargs="+", metavar="FILE", help="films or pictures")
    parser.add_argument("--question", default="", metavar="TEXT", help="answer it, instead of a description")
    group = parser.add_argument_group("evidence (at least one of the first three)")
    words = "a text file with one caption per line, or the captions of a prepared split"
    group.add_argument("--captions", default="", metavar="FILE|DIR:SPLIT", help=words)
    group.add_argument("--classes", type=Path, metavar="FILE", help="a class per line: LABEL or LABEL<TAB>NAME")
    group.add_argument("--templates", default="plain", metavar="SET|FILE", help="of the class names")
    group.add_argument("--index", default="", metavar="INDEX", help="the folder of `twinreel index`, made with MODEL")
    words = f"who listens to files without subtitles: {', '.join(RECOGNISERS)}"
    group.add_argument("--recogniser", default="", metavar="NAME", help=words)
    group.add_argument("--recogniser_model", default="", metavar="FOLDER", help="of the recogniser's model")
    group.add_argument("--language", default="", metavar="CODE", help="what is spoken: en, de ...")
    group.add_argument("--top_k", type=int, default=5, help="texts of each kind")
    group.add_argument("--evidence_only", action="store_true", help="show the evidence, and send nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write descriptions.jsonl and a page")
    add_flags(parser)
    parser.add_json()
    return parser


def _sources(args: Any, *, stack: contextlib.ExitStack) -> "Sources":
    """Open the recogniser, the index, the model and the banks: what may be wrong and is quick first."""
    from ...data.language.recogniser import RecogniserOptions, open_recogniser
    from ..index.database import Settings
    from ..index.models import open_model
    from ..search.collection import Collection
    from .bank import caption_bank, class_bank
    from .gather import Sources, open_index

    if not (args.captions or args.classes or args.index):
        raise UserError("no evidence; give --captions FILE|DIR:SPLIT, --classes FILE or --index INDEX")
    how = {"name": args.recogniser, "model": args.recogniser_model, "language": args.language}
    recogniser = open_recogniser(RecogniserOptions(**how)) if args.recogniser else None
    collection = stack.enter_context(Collection(Path(args.index))) if args.index else None
    settings = collection.settings if collection else Settings(window_s=10.0, overlap_s=5.0, fps=8.0)
    opened = open_model(args.model, fps=settings.fps)
    if collection is not None:
        collection = stack.enter_context(open_index(Path(args.index), opened=opened))
    encoder = opened.encoder
    return Sources(
        opened=opened,
        settings=settings,
        captions=caption_bank(args.captions, encoder=encoder) if args.captions else None,
        labels=class_bank(args.classes, templates=args.templates, encoder=encoder) if args.classes else None,
        collection=collection,
        recogniser=recogniser,
        recogniser_name=args.recogniser,
        count=args.top_k,
    )


def _journal(out: Path | None, *, stack: contextlib.ExitStack) -> Any:
    if out is None:
        return None
    from ...data.journal import Journal

    return stack.enter_context(Journal(out / "answers.journal"))


def _progress(files: list[str], *, hidden: bool) -> Iterator[str]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(files, description="describe", console=console, transient=True, disable=hidden)


def _write(args: Any, found: "list[Described]") -> None:
    from ...data.manifest import write_jsonl
    from .page import write_describe_page

    write_jsonl(args.out / "descriptions.jsonl", lines=[one.to_json() for one in found])
    llm = next((one.llm for one in found if one.llm), args.llm)
    protocol = {
        "model": args.model,
        "captions": args.captions,
        "classes": str(args.classes or ""),
        "templates": args.templates if args.classes else "",
        "index": args.index,
        "recogniser": args.recogniser,
        "top_k": args.top_k,
        "question": args.question,
        "endpoint": next((one.endpoint for one in found if one.endpoint), ""),
        "language model": llm,
        "temperature": args.temperature,
    }
    write_describe_page(args.out, found=found, protocol=protocol)


def _print(found: "list[Described]", *, evidence_only: bool) -> None:
    for one in found:
        print(one.evidence.path)
        for line in one.evidence.lines() if evidence_only else [one.text + (" ..." if one.cut else "")]:
            print(f"  {line}")
