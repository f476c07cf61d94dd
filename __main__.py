"""`twinreel VERB ...`: a table from verb to module; imports only the module that the verb names."""

import importlib
import sys

from . import __version__
from .base.errors import UserError, nearest

VERBS = {
    "demo": ("demo.demo", "make a data set of moving shapes, pretrain on it, report zero-shot retrieval"),
    "prepare": ("data.prepare.command", "decode videos (manifest, CSV or folder) once into record shards"),
    "transcribe": (
        "data.language.transcribe_command",
        "recognise what is said in the clips of a source, with word times, into a manifest",
    ),
    "translate": ("data.language.translate_command", "translate the captions and transcripts of a manifest"),
    "inspect": ("data.inspect.inspect", "describe a prepared folder, as text and as a page; verify its records"),
    "pretrain": ("pretrain.pretrain", "train a video tower and a text tower with a contrastive loss"),
    "plan": ("plan.plan", "compile the train step for a pod without the pod: memory, time, chip-hours"),
    "evaluate": ("evaluate.evaluate", "zero-shot retrieval of a checkpoint, or of saved embeddings"),
    "caption": (
        "evaluate.caption",
        "describe media files, or the clips of a split, with a model's caption decoder",
    ),
    "report": ("evaluate.report_command", "make a report again, or set several models side by side on one page"),
    "interpolate": ("evaluate.interpolate", "measure models between a checkpoint and its fine-tuned form (WiSE-FT)"),
    "probe": ("evaluate.probe", "train a small classifier on a model's frozen video features, and measure it"),
    "finetune": ("finetune.commands.finetune", "train a downstream head on a pretrained checkpoint"),
    "sweep": ("sweep.sweep", "try other values of a config's fields: many runs, compared on one page"),
    "predict": ("finetune.commands.predict", "labels, moments or scores of media files from a fine-tuned checkpoint"),
    "select": ("finetune.commands.select", "choose the clips that are worth labelling next"),
    "summarise": (
        "finetune.commands.summarise",
        "write the best shots of films as one film, with key frames and a storyboard",
    ),
    "explain": ("explain.command", "show which frames, patches, sounds and words carry a score, and check it"),
    "convert": ("zoo.convert.command", "turn public weights (CLIP, SigLIP, VideoPrism ...) into a bundle"),
    "merge": ("zoo.merge_command", "write an adapted model (LoRA, DoRA) with plain weights, as a bundle"),
    "features": ("encode.commands.features", "compute vectors of frames once, for towers that train on them"),
    "export": ("zoo.export.command", "write a model for transformers, open_clip or as StableHLO programs"),
    "encode": ("encode.commands.encode", "embed media files or strings with a checkpoint"),
    "index": ("serve.index.command", "index a collection of videos with a model, so that it can be searched"),
    "search": ("serve.search.command", "find moments of an index by text, a clip, a picture or sound; export them"),
    "forget": ("serve.search.forget_command", "delete a person's clips from an index, by example"),
    "describe": (
        "serve.describe.command",
        "describe clips, or answer a question, with a language model and what a dual tower finds",
    ),
    "serve": ("serve.web.command", "search an index in the browser: a local page, and its HTTP API"),
    "monitor": ("serve.monitor.command", "compare new videos and queries with those that a model was checked on"),
    "watch": ("serve.watch.command", "look at a camera or a stream with a model: alerts, labels, anomalies"),
    "generate train": (
        "generate.commands.train",
        "train a small video generator: frame autoencoder, then a rectified flow over its latents",
    ),
    "generate sample": ("generate.commands.sample", "generate clips from texts, or like given clips"),
    "generate edit": ("generate.commands.edit", "change what a text says of a clip, and keep the rest"),
    "generate score": ("generate.commands.score", "let a dual tower find the captions of generated clips"),
    "launch": (
        "launch.launch",
        "run pretrain, finetune or evaluate in several processes: local, SLURM, GKE, TPU VMs",
    ),
    "bench step": ("bench.commands.step", "measure the train step on synthetic batches: clips/s, FLOPs, MFU, memory"),
    "bench compile": ("bench.commands.compile", "measure how long the train step takes to compile, by depth"),
    "bench loss": ("bench.commands.loss", "measure the contrastive losses, dense and blockwise: time and memory"),
    "bench retrieval": (
        "bench.commands.retrieval",
        "measure how fast ranks of large sets are counted, beside bare products",
    ),
    "bench checkpoint": ("bench.commands.checkpoint", "measure saves and restores, and compare them with the raw disk"),
    "bench finetune": (
        "bench.commands.finetune",
        "measure fine-tuning: cached features, LoRA and full tuning; clips/s, memory",
    ),
    "bench prepare": ("bench.commands.prepare", "compare `prepare` with bare PyAV decoding and JPEG encoding"),
    "bench data": ("bench.commands.data", "compare the input pipeline with the raw decoder of its frames"),
    "bench frames": ("bench.commands.frames", "compare frames as JPEG and as H.264: size, quality, time"),
    "bench remote": (
        "bench.commands.remote",
        "measure the input from behind a URL: clips/s, bytes and requests per clip",
    ),
    "bench index": ("bench.commands.index", "measure how long a prepared folder of very many clips takes to open"),
    "bench search": ("bench.commands.search", "measure searches of a large index: build, memory, recall, latency"),
    "bench serve": (
        "bench.commands.serve",
        "measure the search server: requests/s, latencies, batches beside a plain loop",
    ),
    "bench compare_step": (
        "bench.commands.compare_step",
        "compare the train step with PyTorch's on the same CLIP model",
    ),
    "bench compare_towers": (
        "bench.commands.compare_towers",
        "compare towers with their public implementation: error, speed, memory",
    ),
    "bench compare_generate": (
        "bench.commands.compare_generate",
        "compare the generation of texts with transformers: tokens/s, greedy and by beams",
    ),
    "bench gpu_check": ("bench.commands.gpu_check", "check a GPU: one table of speeds beside peers and limits"),
    "bench compare_input": ("bench.commands.compare_input", "compare the input pipeline with a PyTorch DataLoader"),
}
GROUPS = {
    "bench": "measure the parts of twinreel, and compare them with other libraries",
    "generate": "generate clips from texts, and edit clips by text",
}
"""First words of verbs of two words."""
_START = {"": "--workdir runs/demo", "bench": "--config demo"}
_START |= {"generate": "--config demo_generate --data runs/demo/moving_shapes --workdir runs/painter"}
RESUMABLE = {
    "demo",
    "prepare",
    "pretrain",
    "plan",
    "finetune",
    "generate train",
    "sweep",
    "convert",
    "encode",
    "features",
    "probe",
    "index",
    "transcribe",
    "translate",
    "describe",
}
"""Verbs that continue an interrupted run when the same command runs again."""


def usage(group: str = "") -> str:
    """Return the text of `twinreel --help`, or of `twinreel GROUP --help`."""
    chosen = {verb: line for verb, (_, line) in VERBS.items() if not group or verb.startswith(f"{group} ")}
    width = max(map(len, chosen)) + 2
    title = f"twinreel {group}: {GROUPS[group]}" if group else None
    first = next(iter(chosen))
    return "\n".join(
        [
            title or f"twinreel {__version__}: contrastive video-text pretraining in JAX/Flax",
            "",
            f"usage: twinreel {f'{group} ' if group else ''}VERB [flags]     (`--help` after a verb explains it)",
            "",
            *[f"  {verb:<{width}}{line}" for verb, line in chosen.items()],
            "",
            f"start here:  twinreel {first} {_START[group]}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status (0 success, 1 failure, 2 a mistake in the command or its input)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"twinreel {__version__}")
        return 0
    if argv[0] in GROUPS and (len(argv) == 1 or argv[1] in ("-h", "--help", "help")):
        print(usage(argv[0]))
        return 0
    words = 2 if argv[0] in GROUPS else 1
    verb, rest = " ".join(argv[:words]), argv[words:]
    try:
        if verb not in VERBS:
            raise _unknown_verb(verb)
        module = importlib.import_module(f".{VERBS[verb][0]}", __package__)
        return module.main(rest) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = "; run the same command again to resume" if verb in RESUMABLE else ""
        print(f"interrupted{resume}", file=sys.stderr)
        return 130


def _unknown_verb(verb: str) -> UserError:
    """Build the error for a verb that does not exist; a verb of two words is also found by its second word."""
    group, _, second = verb.partition(" ")
    group = group if group in GROUPS else ""
    if second.startswith("-"):
        return UserError(f"`twinreel {group}` needs a verb before {second}; `twinreel {group} --help` lists them")
    known = [name for name in VERBS if not group or name.startswith(f"{group} ")]
    by_ending = {name.split()[-1]: name for name in known if " " in name}
    hint = nearest(verb, [*known, *GROUPS]) or by_ending.get(nearest(second or verb, by_ending) or "")
    suggestion = f"; did you mean {hint!r}?" if hint else ""
    listing = f"twinreel {group} --help" if group else "twinreel --help"
    return UserError(f"unknown verb {verb!r}{suggestion} (known: {', '.join(known)}; `{listing}` explains them)")


if __name__ == "__main__":
    sys.exit(main())
