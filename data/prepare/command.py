"""The command line of `twinreel prepare`."""

import argparse
import json
from typing import Any

from rich.console import Console

from ...base.errors import UserError
from ...base.parser import Parser
from ..media.clip import FORMS
from .benchmark import add_flags, explained, prepare_benchmark, take_flags
from .duplicates import MODES
from .merge import merge
from .prepare import prepare

WEBDATASET = "webdataset"  # the source that --shards belongs to

_DESCRIPTION = """\
Decode videos once into record shards that training reads.

SOURCE is one of
  a manifest    FILE.jsonl, one clip per line: clip_id, path, captions[], split and, where known, start_s, end_s,
                labels[], spans[] (start_s, end_s, label or text, score), questions[] (question, answers[], options[],
                correct), transcript, sentences[], features{}, meta{}. Paths are relative to the manifest. features
                {"rgb": "a.npy"} are precomputed ones, [rows, columns] each; with them, path may be ""
  a CSV         FILE.csv with the columns path,caption[,start_s,end_s,split,label]; several rows of one path and window
                are several captions of one clip; other columns are kept as meta. Commas, tabs, semicolons or vertical
                bars may stand between the fields. A metadata.csv, .jsonl or .parquet as Hugging Face has it
                (file_name,text) and a Parquet file with the same columns are read as well
  a folder      videos and pictures (clips of one frame) with texts beside them: a.mp4 with a.txt (a caption per line),
                a.json, a.cls (label), a.srt or a.vtt (what is said); or with a metadata.csv; or in class folders, whose
                name is label and caption. Folders such as train, Test, validation are splits. Linked folders are read
  archives      WebDataset .tar files, as video2dataset, img2dataset and clip-video-encode write them: one, a folder of
                them, or a pattern such as 'shards/{00000..00099}.tar': KEY.mp4 with KEY.txt or KEY.cap (caption),
                KEY.json, KEY.cls (label), KEY.NAME.npy (features; KEY.npy are features named rgb); a picture is a clip
                of one frame. Members are read in place, nothing is unpacked
  a benchmark   NAME --annotations DIR --videos DIR: its owners' own files; --list names the benchmarks,
                NAME --help explains one. Missing videos are counted: OUT/prepare.json has each split's coverage
Times are seconds (12.5) or HH:MM:SS.mmm (00:00:12.5).

Without any split in the source, 80 % of the clips go to train, 10 % to val, 10 % to test, by a hash of the path (or
of meta.group, where a clip has one): windows of one file stay in one split, and so does a clip when others come or go.

What belongs to no clip (previews, files of other kinds) is counted and named. Faults in a list are reported
together. A clip that cannot be used (no such file, not decodable, an impossible window, no caption, label or question)
is listed in OUT/rejects.jsonl with its reason. Clips that are the same, byte for byte as stored or nearly, are listed
in OUT/duplicates.jsonl; --duplicates drop leaves them out, --fail_on_leak refuses a clip of another split that is in
train too.

Running the same command again does nothing if OUT is finished, and resumes an interrupted build, shard by shard. Files
that have changed since are noticed by their content, and the shards of their clips are made again. (OUT/inputs.jsonl
has the SHA-256 of each file; it is read again only if its size or times differ. Of a file behind a URL, size and entity
tag are compared, or the time of change where its server has no tag; where it has neither, the size alone.) A finished
OUT with other options or another list of clips is replaced only with --overwrite.

  twinreel prepare MORE --out DIR --append          add a source to a finished DIR
  twinreel prepare --merge A B ... --out DIR        join finished folders into a new one

Neither decodes a clip twice nor changes a shard that is there, and the options (but for --splits) have to be the same.
--append writes the new shards beside the old ones (DIR/twinreel_clips_1, ...) and then exchanges the lists; DIR can be
trained on meanwhile. --merge makes hard links to the shards, or copies where it cannot. A clip_id that comes twice is
refused. A run that was trained on DIR as it was reports that its data changed.

Manifests, CSV files, archives, the videos that they name, and OUT may lie behind a URL: s3:// (pip install
'twinreel[s3]'), gs:// ('twinreel[gcs]'), https:// to read. An OUT behind a URL is built in the user's cache folder and
then sent, prepare.json last.

On a fleet:  twinreel prepare SOURCE --out DIR --beam_runner DataflowRunner --beam_options project=P,region=R,...
Apache Beam's workers then make the shards, the same to the last byte; they must reach SOURCE and OUT by the same paths.
To an OUT behind a URL the workers send the shards themselves.
"""


def main(argv: list[str]) -> int:
    """Run `twinreel prepare SOURCE --out DIR [flags]`."""
    parser = _parser()
    if explained(argv):
        return 0
    args, _ = parser.parse(argv)
    fields: dict[str, Any] = vars(args)
    fields["splits"] = [name.strip() for name in (args.splits or "").split(",") if name.strip()]
    fields["beam_options"] = [option for given in args.beam_options or () for option in split_options(given)]
    as_json, folders = fields.pop("json"), fields.pop("merge")
    fields["console"] = Console(stderr=as_json)
    if folders or not fields["source"]:
        report = _merge(folders, parser=parser, argv=argv, fields=fields)
    else:
        report = _prepare(fields)
    if as_json:
        print(json.dumps(report))
    return 0


def split_options(given: str) -> list[str]:
    """Return the options `name=value` of a string, divided by the commas that lie outside of brackets and quotes."""
    options, depth, quoted = [""], 0, False
    for character in given:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{(") - (character in "]})")
        if character == "," and depth == 0 and not quoted:
            options.append("")
        else:
            options[-1] += character
    return [option.strip() for option in options if option.strip()]


def _prepare(fields: dict[str, Any]) -> dict[str, Any]:
    fields["source"] = _archives(fields["source"], shards=fields.pop("shards"))
    named = take_flags(fields)
    source = fields.pop("source")
    return prepare(source, **fields) if named is None else prepare_benchmark(source, **named, **fields)


def _merge(folders: list[str], *, parser: Parser, argv: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    """Join folders; flags that say how clips are decoded have no meaning here."""
    if not folders:
        parser.error("SOURCE is missing: give a manifest, a CSV, a folder, archives or a benchmark; or --merge A B")
    if fields["source"]:
        raise UserError(f"--merge joins prepared folders and takes no SOURCE, got {fields['source']!r}; leave one out")
    taken = ("out", "duplicates", "fail_on_leak", "overwrite", "console")
    given = {token.partition("=")[0].removeprefix("--").removeprefix("no-") for token in argv if token.startswith("--")}
    if others := sorted(given - {*taken, "merge", "json"}):
        raise UserError(f"--merge decodes nothing: --{others[0]} does not apply; leave it out")
    return merge(folders, **{name: fields[name] for name in taken})


def _archives(source: str, *, shards: str | None) -> str:
    """The source, where `webdataset --shards PATTERN` is another way to say PATTERN."""
    if (source == WEBDATASET) != (shards is not None):
        raise UserError(
            f"SOURCE is {source!r}: --shards PATTERN and SOURCE {WEBDATASET!r} go together; "
            "give both, or the pattern as SOURCE"
        )
    return source if shards is None else shards


def _parser() -> Parser:
    parser = Parser(verb="prepare", description=_DESCRIPTION)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="a manifest (.jsonl), a .csv, a folder of videos, .tar archives, or a benchmark",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or a URL (s3://bucket/folder)")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to keep; 0 keeps every frame")
    parser.add_argument("--short_side", type=int, default=256, help="pixels of the shorter side; 0 = as in the file")
    words = "how frames are stored: JPEG files, or segments of H.264, which take less room and longer to decode"
    parser.add_argument("--frames_as", default="jpeg", choices=FORMS, help=words)
    words = "of JPEG: 1 to 100, 92 by default; 100 keeps colours at full resolution"
    parser.add_argument("--jpeg_quality", type=int, metavar="N", help=words)
    words = "of H.264: frames of a segment, 1 to 64, 8 by default; a drawn frame is decoded from its segment's first on"
    parser.add_argument("--segment", type=int, metavar="N", help=words)
    words = "of H.264: constant rate factor of libx264, 1 (best) to 51, 18 by default"
    parser.add_argument("--crf", type=int, metavar="N", help=words)
    parser.add_argument(
        "--audio", action=argparse.BooleanOptionalAction, default=True, help="keep the sound, 16 kHz mono"
    )
    parser.add_argument("--max_seconds", type=float, default=600.0, help="longest clip that is accepted")
    parser.add_argument("--max_pixels", type=int, default=2**26, help="largest picture (width * height) accepted")
    words = "cut the face out of each frame, as a square of --short_side pixels: the ONNX file of OpenCV's YuNet"
    parser.add_argument("--crop_faces", default="", metavar="FILE", help=words)
    parser.add_argument("--splits", metavar="A,B", help="prepare only these splits")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="decoding processes; 0 = one per core (with Beam: per shard in work, 0 = one)",
    )
    parser.add_argument("--max_bad_fraction", type=float, default=0.05, help="share of clips that may be unusable")
    parser.add_argument(
        "--shard_clips",
        type=int,
        default=0,
        metavar="N",
        help="clips of a shard, the unit in which an interrupted build goes on; 0 = 64 to 1024, by their number",
    )
    parser.add_argument(
        "--beam_runner",
        default="",
        metavar="NAME",
        help="make the shards on Apache Beam: DirectRunner ...",
    )
    parser.add_argument(
        "--beam_options",
        action="append",
        metavar="K=V,...",
        help="the runner's own options, passed on as --K=V; may be given several times. Commas inside of brackets "
        "or double quotes belong to a value",
    )
    parser.add_argument(
        "--clip_timeout", type=float, default=60.0, help="seconds that one second of a clip may take; 0 = no limit"
    )
    parser.add_argument(
        "--clip_memory_gb", type=float, default=4.0, help="memory of a decoding process in GB; 0 = no limit"
    )
    words = "clips that are the same or nearly: list them in duplicates.jsonl, drop them too, or do not look"
    parser.add_argument("--duplicates", default="report", choices=MODES, help=words)
    words = "fail if a clip of another split has a duplicate in train"
    parser.add_argument("--fail_on_leak", action="store_true", help=words)
    parser.add_argument(
        "--shards", metavar="PATTERN", help="archives of `prepare webdataset`: 'dir/{00000..00099}.tar'"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a result that has other options")
    parser.add_argument("--append", action="store_true", help="add SOURCE to the clips that a finished OUT holds")
    words = "finished folders to join into OUT, instead of SOURCE"
    parser.add_argument("--merge", nargs="+", default=[], metavar="DIR", help=words)
    parser.add_json()
    add_flags(parser)
    return parser
