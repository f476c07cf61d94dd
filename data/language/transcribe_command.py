"""The command line of `twinreel transcribe`."""

import json
from pathlib import Path

from rich.console import Console

from ...base.parser import Parser
from .recogniser import RECOGNISERS, RecogniserOptions
from .transcribe import TranscribeOptions, transcribe

_DESCRIPTION = """\
Recognise what is said in the clips of a source, and write it into a manifest.

  twinreel transcribe ~/Videos --out talks.jsonl --as_captions
  twinreel transcribe clips.csv --out said.jsonl --recogniser faster_whisper --model whisper-small-ct2
  twinreel prepare said.jsonl --out data/said          # train on it: config.data.text_from="transcript" or "sentences"

SOURCE is a manifest, a CSV, a folder or archives, as `twinreel prepare` takes them. Clips that have a transcript
already (in the manifest, or as subtitles next to the file: KEY.srt, KEY.vtt, KEY.en.srt) keep it, unless --redo is
given. The manifest has `transcript` and `sentences`, with the times of each word: a window of a clip that is drawn
in training cuts the transcript between its words.

Recognisers (pip install 'twinreel[pocketsphinx]', 'twinreel[whisper]'):
{recognisers}

Nothing is fetched from the network and no sound leaves this machine. Results are kept in OUT.transcripts as they come:
the same command resumes, and after more clips came it recognises these alone. Delete that file to begin anew.
"""


def main(argv: list[str]) -> int:
    """Run `twinreel transcribe SOURCE --out FILE [flags]`."""
    args, _ = _parser().parse(argv)
    recogniser = RecogniserOptions(name=args.recogniser, model=args.model, language=args.language, threads=args.threads)
    options = TranscribeOptions(
        workers=args.workers,
        redo=args.redo,
        as_captions=args.as_captions,
        max_seconds=args.max_seconds,
        max_bad_fraction=args.max_bad_fraction,
    )
    found = transcribe(args.source, out=args.out, recogniser=recogniser, options=options, console=Console(stderr=True))
    if args.json:
        print(json.dumps(found))
        return 0
    print(
        f"{args.out}: {found['clips']:,} clips; heard {found['recognised'] + found['reused']:,} "
        f"({found['reused']:,} in an earlier run, {found['silent']:,} without speech), {found['words']:,} words; "
        f"{found['kept']:,} kept what they had"
    )
    for reason, count in found["unreadable"].items():
        print(f"  cannot be heard, {reason}: {count:,}")
    return 0


def _parser() -> Parser:
    lines = "\n".join(f"  {name:<16}{entry.about}" for name, entry in RECOGNISERS.items())
    parser = Parser(verb="transcribe", description=_DESCRIPTION.format(recognisers=lines))
    parser.add_argument("source", metavar="SOURCE", help="a manifest (.jsonl), a .csv, a folder, or .tar archives")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl", help="the manifest to write")
    parser.add_argument("--recogniser", default="pocketsphinx", metavar="NAME", help=" or ".join(RECOGNISERS))
    parser.add_argument("--model", default="", metavar="FOLDER", help="of the recogniser's model")
    parser.add_argument("--language", default="", metavar="CODE", help="what is spoken: en, de ...; default: found out")
    parser.add_argument("--threads", type=int, default=0, help="threads of a Whisper model; 0 = as it likes")
    words = "processes that recognise; 0 = one per core for pocketsphinx, else one"
    parser.add_argument("--workers", type=int, default=0, help=words)
    parser.add_argument("--redo", action="store_true", help="recognise clips that have a transcript, too")
    words = "make the transcript the caption of clips without one, which `prepare` would reject"
    parser.add_argument("--as_captions", action="store_true", help=words)
    words = "of a clip, what comes after is not heard"
    parser.add_argument("--max_seconds", type=float, default=14_400.0, help=words)
    parser.add_argument("--max_bad_fraction", type=float, default=0.05, help="share of clips that may be unreadable")
    parser.add_json()
    return parser
