"""The command line of `twinreel translate`."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from ...base.chat import Chat, add_flags, of_flags
from ...base.errors import UserError
from ...base.parser import Parser
from .seq2seq import Seq2SeqOptions
from .translate import FIELDS, TranslateOptions, translate

_DESCRIPTION = """\
Translate the texts of a manifest: captions, transcripts, sentences.

  twinreel translate said.jsonl --out german.jsonl --to German --endpoint http://127.0.0.1:8080/v1
  twinreel translate clips.jsonl --out both.jsonl --to French --fields captions --add
  twinreel translate said.jsonl --out german.jsonl --to de --model opus-mt-en-de-ct2
  twinreel translate said.jsonl --out german.jsonl --from eng_Latn --to deu_Latn --model nllb-200-distilled-600M-ct2

--model translates offline, by a folder in the form of CTranslate2 (pip install 'twinreel[translate]'): Marian
(OPUS-MT), NLLB or M2M-100 with their SentencePiece models, as `ct2-transformers-converter --copy_files` writes it. --to
and --from are then codes of the model: deu_Latn (NLLB), de (M2M-100), deu (Marian of several languages; a Marian model
of one pair takes any name).

Otherwise any endpoint with OpenAI's chat completions translates: llama.cpp, vLLM or Ollama on your machine, or a hosted
model. Its key is taken from the environment variable of --key_env and never written anywhere. Texts are sent to it,
nothing else.

The originals stand under `meta.original`. With --add, translated captions come behind the original ones, so that a text
tower of many languages trains on both. Sentences keep their times; those of their words are dropped with the words.

Each text is translated once and kept in OUT.translations as it comes: a killed run resumes with the same command. Busy
and broken answers of an endpoint are tried again with growing waits. An answer that does not have every text is asked
for again in halves; texts that remain without a translation stay as they are and are counted, at most
--max_bad_fraction of them.
"""


def main(argv: list[str]) -> int:
    """Run `twinreel translate MANIFEST --out FILE --to LANGUAGE [flags]`."""
    args, _ = _parser().parse(argv)
    fields = [name.strip() for name in args.fields.split(",") if name.strip()]
    names = ("to", "add", "batch", "parallel", "max_bad_fraction")
    options = TranslateOptions(of=args.source, fields=fields, **{name: getattr(args, name) for name in names})
    found = translate(args.manifest, out=args.out, by=_by(args), options=options, console=Console(stderr=True))
    if args.json:
        print(json.dumps(found))
        return 0
    print(
        f"{args.out}: {found['texts']:,} texts of {found['clips']:,} clips in {found['to']} "
        f"({found['reused']:,} from an earlier run)"
    )
    if found["failed"]:
        print(f"  without a translation, kept as they are: {found['failed']:,}")
    return 0


def _by(args: argparse.Namespace) -> Chat | Seq2SeqOptions:
    """Return what translates."""
    if args.model is None:
        return Chat(of_flags(args))
    if args.endpoint:
        raise UserError("--model and --endpoint both translate; give one of them")
    return Seq2SeqOptions(folder=args.model, beams=args.beams, device=args.device, threads=args.threads)


def _parser() -> Parser:
    parser = Parser(verb="translate", description=_DESCRIPTION)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a .jsonl, as `twinreel transcribe` writes it")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl", help="the manifest to write")
    parser.add_argument("--to", required=True, metavar="LANGUAGE", help="German, French ...; with --model a code of it")
    parser.add_argument(
        "--from", dest="source", default="", metavar="LANGUAGE", help="of the texts; default: found out"
    )
    parser.add_argument("--fields", default=",".join(FIELDS), metavar="A,B", help="what is translated")
    parser.add_argument("--add", action="store_true", help="keep the captions, and add their translations")
    parser.add_argument("--batch", type=int, default=20, help="texts of a request, or of a batch, at most")
    parser.add_argument("--parallel", type=int, default=4, help="requests, or batches, at a time")
    parser.add_argument("--max_bad_fraction", type=float, default=0.02, help="share of texts that may stay as they are")
    group = parser.add_argument_group("a local model")
    words = "Marian, NLLB or M2M-100 in the form of CTranslate2, instead of an endpoint"
    group.add_argument("--model", type=Path, metavar="FOLDER", help=words)
    group.add_argument("--beams", type=int, default=4, help="hypotheses of the beam search; 1 = greedy")
    group.add_argument("--device", default="auto", help="auto, cpu or cuda")
    group.add_argument("--threads", type=int, default=0, help="of one batch on a CPU; 0 = as CTranslate2 chooses")
    add_flags(parser, needed=False)
    parser.add_json()
    return parser
