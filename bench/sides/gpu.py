"""Checks of `twinreel bench gpu_check` that run in a process of their own: attention, compile times, public weights.

They print one line of JSON, a list of rows (`Row`), and need jax and flax; `encode` needs ml_collections as well.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .torch_step import FRAMES, LENGTH, MODELS, PIXELS, VOCAB, SideOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of the table.

    Attributes:
      what: is measured.
      value: the figure, with its unit, as text.
      beside: what it is compared with, and that figure.
      ratio: the figure as a multiple of that; None = there is nothing to compare with.
      goal: what the ratio should be at least; None = it has no goal.
      limit: what the ratio should be at most; None = it has no limit.
    """

    what: str
    value: str
    beside: str = ""
    ratio: float | None = None
    goal: float | None = None
    limit: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large the programs of a check are.

    Attributes:
      model: of `torch_step.MODELS`, whose text tower and width of heads the attention has.
      rows: of attention.
      depths: of the towers whose steps are compiled.
      clips: that are encoded.
      rounds: timed calls.
    """

    model: str
    rows: int
    depths: tuple[int, int]
    clips: int
    rounds: int


SIZES = {
    "full": Size(model="ViT-L/14", rows=256, depths=(6, 24), clips=128, rounds=10),
    "tiny": Size(model="ViT-B/32", rows=1, depths=(1, 2), clips=1, rounds=2),
}


def main() -> int:
    """Run the check that the arguments name: NAME, device and size."""
    name, device, size = sys.argv[1:]
    os.environ["JAX_PLATFORMS"] = "cuda" if device == "gpu" else "cpu"
    rows = {"attention": attention, "compile": compile_times, "encode": encode}[name](SIZES[size])
    print(json.dumps([dataclasses.asdict(row) for row in rows]), flush=True)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An attention: [B,L,K,d] with heads of 64 channels, and its masks."""

    rows: int
    length: int
    heads: int
    masked: bool = False
    causal: bool = False


def attention(size: Size) -> list[Row]:
    """Time attention with its gradients, and compare it with float32: frames, masked frames, causal masked texts."""
    model = MODELS[size.model]
    frames: dict[str, Any] = {"rows": size.rows, "length": model.patches, "heads": model.video["heads"]}
    texts: dict[str, Any] = {"rows": size.rows, "length": LENGTH, "heads": model.text["heads"]}
    cases = {
        "frames": Case(**frames),
        "masked frames": Case(**frames, masked=True),
        "masked texts": Case(**texts, masked=True),
        "causal masked texts": Case(**texts, masked=True, causal=True),
    }
    return [_attention_row(name, case, rounds=size.rounds) for name, case in cases.items()]


def _attention_row(name: str, case: Case, *, rounds: int) -> Row:
    import jax
    import jax.numpy as jnp
    import numpy as np

    draw, shape = np.random.default_rng(0), (case.rows, case.length, case.heads, 64)
    q, k, v, weight = (jnp.asarray(draw.normal(size=shape), jnp.bfloat16) for _ in range(4))
    real = np.arange(case.length) < draw.integers(case.length // 4, case.length + 1, (case.rows, 1))
    calls = _attention_calls(case, mask=jnp.asarray(real) if case.masked else None, weight=weight)
    wanted = jax.tree.leaves(calls["xla"](*(x.astype(jnp.float32) for x in (q, k, v))))[1:]  # without the loss
    times, errors = {}, {}
    for backend, call in calls.items():
        found = jax.tree.leaves(call(q, k, v))[1:]
        errors[backend] = max(_distance(own, to) for own, to in zip(found, wanted, strict=True))
        times[backend] = _seconds(call, q, k, v, rounds=rounds)
    best = min(times, key=lambda one: times[one])
    told = {backend: f"{backend} {1e3 * times[backend]:.2f} ms, error {errors[backend]:.0e}" for backend in times}
    what = f"attention, {name} {list(shape)}, forward and backward"
    if len(calls) == 1:
        return Row(what=what, value=told["xla"], beside="this device has no flash kernel")
    return Row(what=what, value=told[best], beside=told["xla"], ratio=times["xla"] / times[best])


def _attention_calls(case: Case, *, mask: Any, weight: Any) -> dict[str, Callable[..., Any]]:
    """Return, for each backend of the device, loss, outputs and gradients as a compiled function of q, k and v."""
    import jax
    import jax.numpy as jnp

    from ...models.layers.attend import attend
    from ...models.layers.attention import AttentionInputs, visible
    from ...models.layers.backends import kernel_attention
    from ...models.layers.devices import has_flash_kernel

    def plain(q, k, v):
        seen = visible(AttentionInputs(mask=mask), causal=case.causal, queries=case.length, keys=case.length)
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
        return jnp.swapaxes(attend(q, k, v, seen=seen), 1, 2)

    def kernel(q, k, v):
        return kernel_attention(q, k, v, backend="cudnn", mask=mask, causal=case.causal, scale=None, cap=None)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def loss(q, k, v):
            y = function(q, k, v).astype(jnp.float32)
            return jnp.sum(y * weight.astype(jnp.float32)), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    return {"xla": compiled(plain)} | ({"cudnn": compiled(kernel)} if has_flash_kernel() else {})


def compile_times(size: Size) -> list[Row]:
    """Compile steps of two depths, their layers in a loop and written out; the loop's time should hardly grow."""
    from .step import compiled_step

    found = []
    for unroll, form in ((1, "layers in a loop"), (0, "layers unrolled")):
        seconds = []
        for depth in size.depths:
            options = SideOptions(side="twinreel-bfloat16", batch_size=4, model=size.model, unroll=unroll)
            begin = time.perf_counter()
            compiled_step(options, depth=depth)
            seconds.append(time.perf_counter() - begin)
        found.append(
            Row(
                what=f"trace and compile a step, {form}, depth {size.depths[1]}",
                value=f"{seconds[1]:.1f} s",
                beside=f"depth {size.depths[0]}: {seconds[0]:.1f} s",
                ratio=seconds[1] / seconds[0],
                limit=1.3 if unroll else None,
            )
        )
    return found


def encode(size: Size) -> list[Row]:
    """Write a CLIP folder with random weights, convert it, and encode clips from arrays."""
    import jax
    import numpy as np

    from ...cost.chips import peak_flops
    from ...encode.embed.encoder import load

    with tempfile.TemporaryDirectory(prefix="twinreel-gpu-") as folder:
        public = _public_clip(Path(folder), size=size)
        begin = time.perf_counter()
        encoder = load(public)
        opened = time.perf_counter() - begin
    shape = (size.clips, FRAMES, PIXELS, PIXELS, 3)
    clips, batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8), min(32, size.clips)
    encoder.encode_video_arrays(clips[:batch], batch_size=batch)  # compiles
    seconds = _seconds(lambda: encoder.encode_video_arrays(clips, batch_size=batch), rounds=size.rounds)
    model, rate = MODELS[size.model], size.clips / seconds
    width, tokens = model.video["width"], model.patches + 1
    flops = FRAMES * model.video["depth"] * (24 * tokens * width**2 + 4 * tokens**2 * width)
    peak = peak_flops(jax.devices()[0].device_kind, dtype="float32")
    share = f"{100 * rate * flops / peak:.0f} % of the data sheet's plain float32 peak" if peak else ""
    return [
        Row(what=f"open a public {size.model}: convert, build, place", value=f"{opened:.1f} s"),
        Row(what=f"encode clips of {FRAMES} frames from arrays, float32", value=f"{rate:.1f} clips/s", beside=share),
    ]


def _public_clip(folder: Path, *, size: Size) -> Path:
    """Write CLIP with random weights in the form of transformers; return its folder."""
    import numpy as np

    from ...data.options import InputSpec
    from ...engine.keeping.transfer import shapes
    from ...zoo.build import abstract
    from ...zoo.bundle import write_bundle
    from ...zoo.export.export import ExportOptions, export
    from ...zoo.spec import ModelSpec

    model = MODELS[size.model]
    image: dict[str, Any] = {"image_size": PIXELS, "patch": model.patch, "patch_bias": False, "class_token": True}
    image |= model.video | {"pre_norm": True, "pool": "cls", "activation": "quick_gelu"}
    text = {"vocab_size": VOCAB, "causal": True, "pool": "eos", "activation": "quick_gelu", **model.text}
    pixels = f"resize_short_bicubic({PIXELS})|center_crop({PIXELS})"
    given = InputSpec(num_frames=FRAMES, context_length=LENGTH, eval_video=pixels)
    towers = {"video": {"family": "frames", "image": image}, "text": {"family": "transformer", **text}}
    spec = ModelSpec(towers=towers, input=given, embed_dim=model.embed, origin={"made_by": "pretrain"})
    draw = np.random.default_rng(0)
    params = {
        path: np.float32(0.02) * draw.standard_normal(x.shape, np.float32) for path, x in shapes(abstract(spec)).items()
    }
    write_bundle(folder / "bundle", spec=spec, params=params)
    export(folder / "bundle", out=folder / "clip", options=ExportOptions(format="hf", tokenizer="none"))
    return folder / "clip"


def _distance(a: Any, b: Any) -> float:
    """Return the largest difference, as a share of the largest value."""
    import jax.numpy as jnp

    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))


def _seconds(call: Callable[..., Any], *inputs: Any, rounds: int) -> float:
    """Return the median seconds of a call that has been compiled."""
    import jax

    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(call(*inputs))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
