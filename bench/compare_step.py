"""Compare twinreel's train step with PyTorch's: CLIP ViT-B/32 on 8 frames and its text tower, on this machine's CPU.

    pip install torch transformers            # anywhere; nothing is downloaded at run time
    python bench/compare_step.py --torch_python other/bin/python

Both sides do forward, symmetric InfoNCE, backward and AdamW on the same batch of uint8 clips and full-length texts:
torch with `transformers.CLIPModel` (random weights, its default attention; each frame an image, the mean over frames
before the projection), in float32 and under bfloat16 autocast; twinreel with the step that `pretrain` compiles, in
float32 and bfloat16. Other processes measure the rate of bare `jax` matrix products on the shapes of the towers' dense
layers, forward and both products of the backward pass: the denominator of "share of the matmul rate".

All processes live side by side and take turns, one step each, so that a noise hits all alike; ratios are medians over
rounds of the ratio within a round, by wall time and by CPU time. The latter hardly sees what else the machine does, but
counts the time in which a library's threads wait in a loop.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

DTYPES = ("float32", "bfloat16")
SIDES = tuple(f"{side}-{dtype}" for side in ("torch", "twinreel", "matmul") for dtype in DTYPES)
FRAMES, PIXELS, PATCH, LENGTH, VOCAB, EMBED = 8, 224, 32, 77, 49_408, 512
VIDEO = {"width": 768, "depth": 12, "heads": 12}
TEXT = {"width": 512, "depth": 12, "heads": 8}
PLACES = (PIXELS // PATCH) ** 2
ADAMW = {"lr": 1e-4, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}


def main() -> int:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=4, help="clips of a batch (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side, in turns (default: 7)")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch (default: this one)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"which sides take part (default: {','.join(SIDES)})")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return _serve(args.side, batch_size=args.batch_size)
    sides = args.sides.split(",")
    if wrong := sorted(set(sides) - set(SIDES)):
        parser.error(f"--sides names {', '.join(wrong)}; there are {', '.join(SIDES)}")
    result = _compare(args, sides=sides)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def _compare(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Start every side, let them take turns, and put their times beside each other."""
    workers, ready = {}, {}
    for side in sides:
        python = args.torch_python if side.startswith("torch") else sys.executable
        command = [python, __file__, f"--side={side}", f"--batch_size={args.batch_size}"]
        workers[side] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready[side] = json.loads(_line(workers[side], side=side))  # one at a time: compilation is not disturbed
    times: dict[str, list[float]] = {side: [] for side in sides}
    cpu_times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, worker in workers.items():
            worker.stdin.write("step\n")
            worker.stdin.flush()
            wall, cpu = map(float, _line(worker, side=side).split())
            times[side].append(wall)
            cpu_times[side].append(cpu)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return {
        "batch_size": args.batch_size,
        "frames": FRAMES,
        "cores": len(os.sched_getaffinity(0)),
        "sides": {side: ready[side] | _figures(times[side], flops=ready[side]["flops"]) for side in sides},
        "ratios": _ratios(times, flops={side: ready[side]["flops"] for side in sides}),
        "cpu_ratios": _ratios(cpu_times, flops={side: ready[side]["flops"] for side in sides}),
    }


def _line(worker: subprocess.Popen, *, side: str) -> str:
    line = worker.stdout.readline() if worker.stdout else ""
    if not line:
        raise SystemExit(f"the side {side} ended with status {worker.wait()}; its message stands above")
    return line


def _figures(times: list[float], *, flops: float) -> dict[str, float]:
    median = statistics.median(times)
    return {"step_s": median, "step_min_s": min(times), "gflops_per_s": flops / median / 1e9}


def _ratios(times: dict[str, list[float]], *, flops: dict[str, float]) -> dict[str, float]:
    """Median over rounds of how many times faster in clips, and which share of the matmul rate in FLOPs."""
    pairs = {
        f"{ours} / {theirs}": (ours, theirs)
        for ours in times
        for theirs in times
        if ours.startswith("twinreel") and theirs.startswith("torch")
    }
    found = {
        name: statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))
        for name, (ours, theirs) in pairs.items()
    }
    for side in times:
        bare = f"matmul-{side.split('-')[1]}"
        if bare in times and not side.startswith("matmul"):
            shares = [flops[side] / a * b / flops[bare] for a, b in zip(times[side], times[bare], strict=True)]
            found[f"{side} / {bare}"] = statistics.median(shares)
    return found


def _print(result: dict[str, Any]) -> None:
    print(f"{result['batch_size']} clips of {result['frames']} frames, {result['cores']} cores")
    print(f"{'side':18} {'step, median':>12} {'least':>9} {'GFLOP/step':>11} {'GFLOP/s':>9} {'parameters':>13}")
    for side, row in result["sides"].items():
        print(
            f"{side:18} {row['step_s']:10.3f} s {row['step_min_s']:7.3f} s {row['flops'] / 1e9:11,.0f} "
            f"{row['gflops_per_s']:9,.0f} {row.get('parameters', 0):13,}"
        )
    print("\ntimes as fast in clips/s (against torch), share of the FLOP rate (against matmul); medians over rounds:")
    print(f"{'':38} {'wall':>6} {'CPU':>6}")
    for name, value in result["ratios"].items():
        print(f"{name:38} {value:6.2f} {result['cpu_ratios'][name]:6.2f}")


def _serve(side: str, *, batch_size: int) -> int:
    """Be one side: say what it is made of, then time a step for every line that comes in."""
    kind, dtype = side.split("-")
    step, facts = {"torch": _torch, "twinreel": _twinreel, "matmul": _matmul}[kind](dtype, batch_size=batch_size)
    for _ in range(2):
        step()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        begin_cpu = time.process_time()
        step()
        print(time.perf_counter() - begin, time.process_time() - begin_cpu, flush=True)
    return 0


def dense_layers(*, batch_size: int, places: int) -> list[tuple[int, int, int]]:
    """Return (rows, width in, width out) of every dense layer of both towers; `places` are the tokens of a frame."""
    found = []
    for tower, rows in ((VIDEO, batch_size * FRAMES * places), (TEXT, batch_size * LENGTH)):
        width = tower["width"]
        for width_in, width_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
            found += [(rows, width_in, width_out)] * tower["depth"]
    return found


def step_flops(*, batch_size: int, places: int) -> float:
    """Count the FLOPs of all matrix products of a step: dense layers and attention x 3, patches x 2 (no gradient)."""
    dense = sum(2 * rows * a * b for rows, a, b in dense_layers(batch_size=batch_size, places=places))
    attention = 0
    for tower, texts, length in ((VIDEO, batch_size * FRAMES, places), (TEXT, batch_size, LENGTH)):
        attention += tower["depth"] * texts * 4 * length**2 * tower["width"]
    patches = 2 * batch_size * FRAMES * PLACES * 3 * PATCH**2 * VIDEO["width"]
    return 3 * (dense + attention) + 2 * patches


def _batch(batch_size: int) -> tuple[Any, Any]:
    """The batch that both sides train on: uint8 [B,T,H,W,3] and int32 [B,L]."""
    import numpy as np

    draw = np.random.default_rng(0)
    video = draw.integers(0, 256, (batch_size, FRAMES, PIXELS, PIXELS, 3), dtype=np.uint8)
    text = draw.integers(1, VOCAB - 1, (batch_size, LENGTH)).astype(np.int32)
    text[:, -1] = VOCAB - 1  # the end, where CLIP reads the sentence
    return video, text


def _torch(dtype: str, *, batch_size: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    sizes = {
        name: {
            "hidden_size": tower["width"],
            "intermediate_size": 4 * tower["width"],
            "num_hidden_layers": tower["depth"],
            "num_attention_heads": tower["heads"],
        }
        for name, tower in (("vision", VIDEO), ("text", TEXT))
    }
    config = transformers.CLIPConfig(
        vision_config=sizes["vision"] | {"image_size": PIXELS, "patch_size": PATCH},
        text_config=sizes["text"] | {"vocab_size": VOCAB, "max_position_embeddings": LENGTH, "eos_token_id": VOCAB - 1},
        projection_dim=EMBED,
    )
    model = transformers.CLIPModel(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=ADAMW["lr"],
        betas=(ADAMW["b1"], ADAMW["b2"]),
        eps=ADAMW["eps"],
        weight_decay=0.2,
        fused=True,
    )
    video, text = (torch.from_numpy(array) for array in _batch(batch_size))
    text, seen = text.long(), torch.ones(text.shape, dtype=torch.long)
    own = torch.arange(batch_size)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            pixels = (video.flatten(0, 1).permute(0, 3, 1, 2).float() * (2 / 255) - 1).contiguous()
            frames = model.vision_model(pixel_values=pixels).pooler_output.unflatten(0, (batch_size, FRAMES))
            x = model.visual_projection(frames.mean(1)).float()
            y = model.text_projection(model.text_model(input_ids=text, attention_mask=seen).pooler_output).float()
        x, y = (torch.nn.functional.normalize(rows, dim=-1) for rows in (x, y))
        logits = model.logit_scale.exp() * x @ y.T
        loss = 0.5 * (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step, {
        "what": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops": step_flops(batch_size=batch_size, places=PLACES + 1),  # the class token
    }


def _twinreel(dtype: str, *, batch_size: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    import jax
    import numpy as np

    from twinreel.engine.optimizer.optimizer import make_optimizer  # pyright: ignore[reportMissingImports]
    from twinreel.engine.sharding.mesh import make_mesh, put_batch  # pyright: ignore[reportMissingImports]
    from twinreel.engine.step.state import Blueprint  # pyright: ignore[reportMissingImports]
    from twinreel.engine.step.step import compile_step, stop_flags  # pyright: ignore[reportMissingImports]
    from twinreel.pretrain.objective import Contrastive  # pyright: ignore[reportMissingImports]

    same = {"dtype": dtype, "activation": "quick_gelu"}
    video = VIDEO | same | {"image_size": PIXELS, "patch": PATCH, "temporal_depth": 0}
    objective = Contrastive(
        model={"embed_dim": EMBED, "unroll": 0, "video": video, "text": TEXT | same},
        loss={},
        num_frames=FRAMES,
        context_length=LENGTH,
        vocab_size=VOCAB,
    )
    optimizer = make_optimizer(name="adamw", schedule="constant", steps=1000, **ADAMW)
    mesh = make_mesh()
    pixels, text = _batch(batch_size)
    rows = {"video": pixels, "text": text, "text_mask": np.ones(text.shape, bool)}
    with jax.set_mesh(mesh):
        blueprint = Blueprint(objective=objective, optimizer=optimizer, mesh=mesh, seed=0)
        batch, go_on = put_batch(rows, mesh=mesh), stop_flags(mesh)[False]
        compiled = compile_step(batch, objective=objective, optimizer=optimizer, blueprint=blueprint)
        state = blueprint.init()

    def step() -> float:
        nonlocal state
        state, outputs = compiled(state, batch, go_on)
        return float(outputs["metrics"]["loss"])

    return step, {
        "what": f"twinreel, jax {jax.__version__}",
        "parameters": sum(value.size for value in state.params.values()),
        "flops": step_flops(batch_size=batch_size, places=PLACES),
    }


def _matmul(dtype: str, *, batch_size: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Bare products on the dense layers' shapes: x W, dy W^T and x^T dy of each kind of layer, as `jnp` writes them.

    Operands are of the dtype, results of float32 (the faster of jax's two ways in bfloat16).
    """
    import jax
    import jax.numpy as jnp

    layers = set(dense_layers(batch_size=batch_size, places=PLACES))
    with jax.numpy_dtype_promotion("standard"):
        draws = {
            shape: [
                jax.random.normal(jax.random.key(i), sides, jnp.float32).astype(dtype)
                for i, sides in enumerate((shape[:2], shape[1:], (shape[0], shape[2])))
            ]
            for shape in layers
        }

    def product(contract: tuple[int, int]):
        def run(a, b):
            return jax.lax.dot_general(
                a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32
            )

        return jax.jit(run)

    forward, to_input, to_weight = product((1, 0)), product((1, 1)), product((0, 0))

    def step() -> None:
        for x, w, dy in draws.values():
            jax.block_until_ready((forward(x, w), to_input(dy, w), to_weight(x, dy)))

    return step, {"what": f"jax {jax.__version__}", "flops": float(sum(6 * a * b * c for a, b, c in layers))}


if __name__ == "__main__":
    sys.exit(main())
