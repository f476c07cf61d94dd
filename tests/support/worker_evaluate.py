"""One of several processes that run the evaluations of a config on a model with random weights.

Prints the results, the records of the split that this process has read, and how many pairs it has counted in tiles;
then a record fails on the last process.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from fake_devices import xla_flags


def opened(overrides, workdir):
    """Return the one evaluation of config `demo` with overrides, and a model with random weights."""
    from flax import nnx

    from twinreel.base.config import load_config
    from twinreel.pretrain.begin import begin
    from twinreel.pretrain.evaluations import to_run
    from twinreel.pretrain.objective import make_objective

    begun = begin(load_config("demo", overrides=overrides), workdir=workdir, start=None)
    objective = make_objective(begun.config, data=begun.data, vocab_size=begun.tokenizer.vocab_size)
    [evaluation] = to_run(begun.evaluations, spec=objective.spec, tokenizer=begun.tokenizer)
    return evaluation, objective.init(nnx.Rngs(0))


def count_in_tiles():
    """Count on the devices however small the set is; returns a list of the pairs of each call."""
    from twinreel.evaluate.counting.count import CountOptions
    from twinreel.evaluate.counting.devices import DeviceCounter

    pairs, call = [], DeviceCounter.call

    def counted(self, block, *, gallery, piece):
        pairs.append(int((block.texts >= 0).sum()) * (piece.stop - piece.start))
        return call(self, block, gallery=gallery, piece=piece)

    DeviceCounter.call = counted
    small = {"host_pairs": 0, "tile_bytes": 256}
    CountOptions.__init__.__kwdefaults__.update(small)
    return pairs


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"], os.environ["XLA_FLAGS"] = "cpu", xla_flags(2)
    from twinreel.base.errors import UserError
    from twinreel.data.batches.records import Records
    from twinreel.engine.start.join import initialize_distributed

    initialize_distributed(coordinator=args.coordinator, num_processes=args.num_processes, process_id=args.process_id)
    evaluation, model = opened(args.overrides, args.workdir)
    read, whole = [], Records.read

    def counted(self, split, indices):
        read.extend(int(index) for index in indices)
        return whole(self, split, indices)

    Records.read, pairs = counted, count_in_tiles()
    results = evaluation.run(model, 1)
    print(json.dumps({"results": results, "read": read, "counted": sum(pairs)}), flush=True)

    def broken(self, split, indices):
        if args.process_id == args.num_processes - 1:
            raise UserError("record 5 is damaged")
        return whole(self, split, indices)

    Records.read, began = broken, time.monotonic()
    try:
        evaluation.run(model, 2)
    except UserError as error:
        print(json.dumps({"error": str(error), "seconds": time.monotonic() - began}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
