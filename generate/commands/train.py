"""`twinreel generate train`: train a video generator on a prepared data set."""

import sys

from ...base.config import load_config
from ...base.parser import Parser
from ...engine.remote.place import shown, workdir_of
from ...engine.start.allocator import keep_freed_memory_on_cpus
from ...engine.start.flags import join_run

DESCRIPTION = """Train a small video generator on a prepared data set with captions.

  twinreel generate train --config demo_generate --data runs/demo/moving_shapes --workdir runs/painter

It has two stages, each a run of its own:
  1. an autoencoder learns to turn single frames into a few numbers (latents) and back   (WORKDIR/stages/autoencoder)
  2. a rectified flow learns to turn noise into the latents of all frames of a clip, given a condition   (WORKDIR)
config.first_stage lists what differs in the first one: steps, batch size, learning rate.

The condition (config.condition):
  kind="text"   a text encoder that is trained with it; the generator then takes texts
  kind="tower"  the embedding of a frozen dual tower (source=RUN or BUNDLE): texts, and clips ("more like this one")

Stop it in any way (Ctrl-C, SIGTERM, kill -9, a power cut); running the same command again resumes it. Then:
  twinreel generate sample runs/painter --text "a large red square falls, then a small blue star turns" --out clips
  twinreel generate edit runs/painter film.mp4 --from "a red square falls" --to "a blue square falls" --out edits
  twinreel generate score runs/painter --judge runs/demo/pretrain --data runs/demo/moving_shapes --out report
docs/generation.md explains the method and its figures."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="generate train", description=DESCRIPTION)
    parser.add_config()
    parser.add_run(stage="second")
    parser.add_distributed()
    args, overrides = parser.parse(argv)
    keep_freed_memory_on_cpus()  # before any library starts threads
    workdir = workdir_of(args.workdir)
    config = load_config(args.config, overrides=[*overrides, *([f"data.dir={args.data}"] if args.data else [])])
    workdir = workdir_of(args.workdir, process=join_run(args))
    from ..train.stages import train_generator

    result, place = train_generator(
        config, workdir=workdir, resume_step=args.resume_step, overwrite_config=args.overwrite_config
    )
    print(f"step {result.step}: {result.reason}; checkpoint in {shown(place)}/checkpoints", file=sys.stderr)
    return args.stopped_status if result.reason == "terminated" else 0
