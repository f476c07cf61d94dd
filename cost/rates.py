"""What share of a chip's peak its matrix products reach in a training step: published measurements, by chip."""

from typing import NamedTuple

from ..base.errors import unknown
from .chips import Chip


class Rate(NamedTuple):
    """A measured utilisation of a whole training step, and where it is published.

    A step also waits, sends, and computes what is not a product, so its utilisation is a lower bound of the rate of
    products alone. MFU counts model FLOPs only; HFU counts what is computed a second time as well, and is the closer
    bound.
    """

    share: float
    source: str


# For each chip the highest figure of a dense model in bfloat16 on one slice (GPUs: of any size), rounded down.
# A step like ours may reach less: PaliGemma (Beyer et al. 2024, SigLIP So400m and Gemma 2B on v5e-256) reports 55 %; by
# our count its 5,189 tokens/s a chip make about 40 % of model FLOPs, and 55 % only with what is recomputed.
RATES: dict[str, Rate] = {
    "v4": Rate(0.57, "57.8 % HFU of PaLM 540B, Chowdhery et al. 2022, table 3"),
    "v5e": Rate(0.66, "66.9 % MFU of MaxText's 32B model on 256 chips, MaxText/configs/v5e/README.md"),
    "v5p": Rate(0.71, "71.5 % MFU of MaxText's 32B model on 64 chips, MaxText/configs/v5p/README.md"),
    "v6e": Rate(0.50, "50.3 % MFU of Llama 3.1 70B on 256 chips, MaxText's tiers of optimised models"),
    "tpu7x": Rate(0.50, "the rate of v6e: no figure of a dense model in bfloat16 was found"),
    "a100": Rate(0.57, "57.0 % HFU of Megatron-LM's 530B model, Korthikanti et al. 2022, table 5"),
    "h100": Rate(0.59, "59.0 % HFU of MPT-13B on 8 GPUs, llm-foundry, scripts/train/benchmarking/README.md"),
    "h200": Rate(0.59, "the rate of H100, whose matrix units it has"),
    "b200": Rate(0.59, "the rate of H100: no figure of a dense model in bfloat16 was found"),
}
"""Name of a chip -> its rate: the default of `plan --matmul`."""


def matmul_rate(chip: Chip) -> Rate:
    """Return the rate that is assumed for a chip."""
    if chip.name not in RATES:
        raise unknown("chip with a rate of matrix products", chip.name, RATES)
    return RATES[chip.name]
