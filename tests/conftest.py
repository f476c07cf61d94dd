"""Shared set-up of all tests: eight fake CPU devices, strict promotion, compiled programs, media files, tiny data."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

# Most time goes into compiling small programs: it takes half as long without optimisations, half of that again with
# XLA's older code generator for fused operations, a fifth less in one part instead of 32 that threads compile, and a
# seventh less where operations do not know the lines of Python that made them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
if "xla_cpu_use_fusion_emitters" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
if "xla_cpu_parallel_codegen_split_count" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"

# What XLA compiles is kept for the length of a run: many tests compile the same, and so do the processes they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="twinreel-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import pytest

ROOT = Path(__file__).parent.parent

TINY = [
    "shapes.train=24",
    "shapes.val=8",
    "shapes.test=8",
    "data.batch_size=8",
    "data.group_size=2",
    "data.foils_per_clip=0",
    "data.pixel_mean=(0.5, 0.5, 0.5)",
    "data.pixel_std=(0.5, 0.5, 0.5)",
    "data.context_length=24",
    "model.video.dtype=float32",
    "model.text.dtype=float32",
    "loss.hard_negative=0.0",
    "optimizer.name=adamw",
    "optimizer.lr=1e-3",
    "model.video.width=16",
    "model.video.heads=2",
    "model.video.depth=1",
    "model.video.temporal_depth=1",
    "model.text.width=16",
    "model.text.heads=2",
    "model.text.depth=1",
    "model.embed_dim=8",
    "optimizer.warmup_steps=2",
    "train.steps=6",
    "train.log_every=1",
    "train.eval_every=3",
    "train.checkpoint_every=3",
]
"""Overrides that make config `demo` train in seconds."""


def pytest_configure():
    """Collect garbage less often: tracing makes many small objects, and takes a sixth less time so."""
    gc.set_threshold(100_000, 20, 100)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Forget compiled programs at the end of a file: others rarely need them, and they would fill the memory."""
    import jax

    result = yield
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()
    return result


def pytest_collection_finish():
    """Exempt what was imported from garbage collection: it stays to the end."""
    import hypothesis  # noqa: F401 - its plugin does so at the end, and then does not find what is exempt

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
    """Fail on implicit dtype and rank promotion."""
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def media():
    """The functions of `media_files`, as `media.grey`, `media.tone`, `media.write`."""
    from types import SimpleNamespace

    from media_files import grey, tone, write_media

    return SimpleNamespace(grey=grey, tone=tone, write=write_media)


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """The folder of real clips (TWINREEL_REAL); tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TWINREEL_REAL", ROOT.parent / "shared" / "real"))
    if not (folder / "clips.jsonl").is_file():
        pytest.skip(f"no real clips at {folder} (set TWINREEL_REAL)")
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder of records: 24 train, 8 val and 8 test clips."""
    from twinreel.data.prepare.prepare import prepare
    from twinreel.demo import moving_shapes

    folder = tmp_path_factory.mktemp("tiny")
    manifest = moving_shapes.write(folder / "videos", train=24, val=8, test=8, workers=1, progress=False)
    prepare(manifest, out=folder / "data", fps=6.0, short_side=52, workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_overrides(tiny_data):
    """Overrides of config `demo` for that folder."""
    return [*TINY, f"data.dir={tiny_data}"]


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A prepared data set `data` of clips by colour, and the checkpoint `pretrained`."""
    from colour_clips import prepare_and_pretrain

    return prepare_and_pretrain(tmp_path_factory.mktemp("colours"))
