"""Shared set-up of all tests: eight fake CPU devices, strict promotion, compiled programs, the folder of real clips."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

# What XLA compiles is kept for the length of a run: many tests compile the same, and so do the processes they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="twinreel-compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import pytest

ROOT = Path(__file__).parent.parent


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
