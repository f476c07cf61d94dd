"""`twinreel VERB ...`: a table from verb to module; imports only the module that the verb names."""

import importlib
import sys

from . import __version__
from .base.errors import UserError, unknown

VERBS = {
    "demo": ("demo.demo", "make a data set of moving shapes, pretrain on it, report zero-shot retrieval"),
    "prepare": ("data.prepare.command", "decode videos (manifest, CSV or folder) once into record shards"),
    "inspect": ("data.inspect.inspect", "say what is in a prepared folder, as text and as a page; verify its records"),
    "pretrain": ("pretrain.pretrain", "train a video tower and a text tower with InfoNCE"),
    "plan": ("plan.plan", "compile the step for a pod without the pod: memory, time, chip-hours"),
    "evaluate": ("evaluate.evaluate", "zero-shot retrieval of a checkpoint, or of saved embeddings"),
    "finetune": ("finetune.finetune", "train a downstream head on a pretrained checkpoint"),
    "encode": ("encode.encode", "embed media files or strings with a checkpoint"),
    "launch": ("launch.launch", "start several processes of pretrain or finetune: here, SLURM, GKE, TPU VMs"),
    "bench step": ("bench.step", "measure the train step on synthetic batches: clips/s, FLOPs, MFU, memory"),
    "bench loss": ("bench.loss", "measure the contrastive losses, dense and blockwise: time and memory"),
    "bench checkpoint": ("bench.checkpoint", "measure saves beside the steps, restores, and the raw disk"),
    "bench prepare": ("bench.prepare", "measure prepare beside bare PyAV decoding and JPEG encoding"),
    "bench data": ("bench.data", "measure the input pipeline beside the raw JPEG decoding rate"),
}


def usage() -> str:
    """Return the text of `twinreel --help`."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{line}" for verb, (_, line) in VERBS.items()]
    return "\n".join(
        [
            f"twinreel {__version__}: contrastive video-text pretraining in JAX/Flax",
            "",
            "usage: twinreel VERB [flags]     (twinreel VERB --help explains a verb)",
            "",
            *lines,
            "",
            "start here:  twinreel demo --workdir runs/demo",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status (0 done, 1 failed, 2 the user can mend it)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"twinreel {__version__}")
        return 0
    words = 2 if argv[0] in {name.split()[0] for name in VERBS if " " in name} else 1
    verb, rest = " ".join(argv[:words]), argv[words:]
    try:
        if verb not in VERBS:
            raise unknown("verb", verb, VERBS)
        module = importlib.import_module(f".{VERBS[verb][0]}", __package__)
        return module.main(rest) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
