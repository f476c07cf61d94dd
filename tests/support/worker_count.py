"""A process that counts its share of the ranks of a set and writes the counts of all; for test_count_processes.py."""

import argparse
import os
import sys

from fake_devices import xla_flags


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("arrays")
    parser.add_argument("--out", required=True)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = xla_flags(2)

    import numpy as np

    from twinreel.engine.start.join import initialize_distributed
    from twinreel.evaluate.counting.count import CountOptions, count_ranks
    from twinreel.evaluate.counting.questions import QUESTIONS, Pairs

    initialize_distributed(coordinator=args.coordinator, num_processes=args.num_processes, process_id=args.process_id)
    with np.load(args.arrays) as file:
        pairs = Pairs(**file)
    options = CountOptions(host_pairs=0, tile_bytes=4096, gallery_bytes=4096, together=True)
    ranks = count_ranks(QUESTIONS, pairs=pairs, options=options)
    fields = ("above", "equal", "right")
    np.savez(args.out, **{f"{name}/{field}": getattr(one, field) for name, one in ranks.items() for field in fields})
    return 0


if __name__ == "__main__":
    sys.exit(main())
