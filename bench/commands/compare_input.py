"""`twinreel bench compare_input`: twinreel's input pipeline and a PyTorch DataLoader, on the same clips."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...base.errors import UserError, unknown
from ...base.parser import Parser
from ..sides.torch_input import DECODERS, InputOptions, rate

DESCRIPTION = """\
Compare twinreel's input with a PyTorch DataLoader that decodes the same videos anew in every epoch.

  pip install torch decord                           in any Python; without decord, PyAV decodes
  twinreel bench compare_input clips.jsonl --torch_python other/bin/python

Prints the clips/s of both sides, their ratio in each round, and after how many epochs `twinreel prepare` has paid for
itself, which the DataLoader does without.

Both sides take T frames of the same moments of a clip (the middles of T equal parts), resize the shorter side to
--short_side and cut a random square. The DataLoader decodes them from the video files, in --workers processes;
twinreel reads the stored frames of a prepared folder, in as many threads. Each side is a process of its own, and the
two take turns."""

SIDES = ("torch", "twinreel")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench compare_input", description=DESCRIPTION)
    parser.add_argument("manifest", type=Path, help="a manifest (.jsonl); every clip is used")
    parser.add_argument("--num_frames", type=int, default=8, help="frames T of a clip")
    parser.add_argument("--crop", type=int, default=224, help="pixels of the square")
    parser.add_argument("--short_side", type=int, default=256, help="pixels of the shorter side before the crop")
    parser.add_argument("--batch_size", type=int, default=32, help="clips of a batch")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader, threads of twinreel")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each side")
    parser.add_argument("--decoder", default="auto", help=f"of the DataLoader: {', '.join(DECODERS)}")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--prepared", type=Path, help="a folder prepared from the manifest; by default it is made")
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to prepare; 0 = every frame")
    parser.add_json()
    args, _ = parser.parse(argv)
    if args.decoder not in DECODERS:
        raise unknown("--decoder", args.decoder, DECODERS)
    if not args.manifest.is_file():
        raise UserError(f"the manifest {str(args.manifest)!r} does not exist; give a .jsonl file")
    for name in ("num_frames", "crop", "batch_size", "workers", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    with tempfile.TemporaryDirectory() as scratch:
        result = _compare(args, scratch=Path(scratch))
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def twinreel_rate(options: InputOptions) -> dict[str, Any]:
    """Measure twinreel's training input on the prepared folder: `what` was measured, and `clips_per_s`."""
    from ...data.batches.pipeline import make_tokenizer, train_batches
    from ...data.options import DataOptions

    first = (Path(options.prepared) / "clips.jsonl").read_text(encoding="utf-8").splitlines()[0]
    data = DataOptions.of(
        {
            "dir": options.prepared,
            "batch_size": options.batch_size,
            "num_frames": options.num_frames,
            "train_split": json.loads(first)["split"],
            "train_sampling": "uniform",
            "train_video": f"resize_short({options.short_side})|random_crop({options.crop})",
            "num_threads": options.workers,
        }
    )
    batches = train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0)
    found = rate(batches, count=lambda batch: len(batch["video"]), seconds=options.seconds)
    return {"what": "twinreel", "clips_per_s": found}


def side() -> int:
    """Run twinreel's side, in a process of its own."""
    print(json.dumps(twinreel_rate(InputOptions.parse(sys.argv[1:]))))
    return 0


def _compare(args: argparse.Namespace, *, scratch: Path) -> dict[str, Any]:
    """Prepare the clips if need be, and measure both sides in turns."""
    prepare_s = None
    if args.prepared is None:
        args.prepared = scratch / "prepared"
        prepare_s = _prepare(args)
    names = ("num_frames", "crop", "short_side", "batch_size", "workers", "seconds", "decoder")
    given = {name: getattr(args, name) for name in names}
    options = InputOptions(manifest=str(args.manifest), prepared=str(args.prepared), **given)
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        rounds.append({name: _run(name, options=options, torch_python=args.torch_python) for name in SIDES})
        for found in rounds[-1].values():
            print(f"{found['what']}: {found['clips_per_s']:.1f} clips/s", file=sys.stderr, flush=True)
    rates = {name: [one[name]["clips_per_s"] for one in rounds] for name in SIDES}
    clips = sum(1 for line in args.manifest.read_text(encoding="utf-8").splitlines() if line.strip())
    saved_s = clips / max(rates["torch"]) - clips / max(rates["twinreel"])
    return {
        "what": {name: rounds[0][name]["what"] for name in SIDES},
        "clips_per_s": rates,
        "ratios": [ours / theirs for theirs, ours in zip(rates["torch"], rates["twinreel"], strict=True)],
        "prepare_s": prepare_s,
        "epochs_to_pay": prepare_s / saved_s if prepare_s and saved_s > 0 else None,
        "num_frames": args.num_frames,
    }


def _prepare(args: argparse.Namespace) -> float:
    """Run `twinreel prepare` on the manifest; return the seconds that it took."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", __name__.split(".")[0], "prepare", str(args.manifest), "--out", args.prepared]
    command += ["--short_side", str(args.short_side), "--fps", str(args.fps), "--workers", str(args.workers)]
    command += ["--max_bad_fraction", "1"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"`twinreel prepare {args.manifest}` failed; its own message is above")
    return time.perf_counter() - begin


def _run(name: str, *, options: InputOptions, torch_python: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    if name == "torch":
        command = [torch_python, str(Path(__file__).parents[1] / "sides" / "torch_input.py")]
    else:
        command = [sys.executable, "-c", f"import sys; from {__name__} import side; sys.exit(side())"]
    try:
        done = subprocess.run([*command, *options.flags()], stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise UserError(f"--torch_python={torch_python} cannot be run: {error}") from error
    if done.returncode:
        hint = "; --torch_python names a Python that has torch" if name == "torch" else ""
        raise UserError(f"the side {name} ended with status {done.returncode}; its own message is above{hint}")
    return json.loads(done.stdout.splitlines()[-1])


def _print(result: dict[str, Any]) -> None:
    for name, what in result["what"].items():
        rates = ", ".join(f"{value:.1f}" for value in result["clips_per_s"][name])
        print(f"{what}: {rates} clips/s of {result['num_frames']} frames")
    print(f"twinreel / torch, by round: {', '.join(f'{ratio:.1f}' for ratio in result['ratios'])}")
    if result["epochs_to_pay"]:
        epochs = f"paid for after {result['epochs_to_pay']:.1f} epochs"
        print(f"`twinreel prepare` took {result['prepare_s']:.0f} s, once: {epochs}")
