"""The floors of the house: which folder may import which, and what may be imported at all (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    ["base"],
    ["configs", "pages"],
    ["data", "models", "losses"],
    ["engine"],
    ["zoo", "cost"],
    ["encode"],
    ["evaluate"],
    ["pretrain", "finetune", "serve", "explain", "generate"],
    ["plan", "launch", "bench", "demo", "sweep"],
]
FLOOR = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
_NO_TENSORFLOW = {"tensorflow", "tensorflow_datasets"}
FORBIDDEN = dict.fromkeys(FLOOR, _NO_TENSORFLOW) | {
    "base": {"jax", "flax", "absl", "numpy"} | _NO_TENSORFLOW,
    "configs": {"jax", "flax", "absl"} | _NO_TENSORFLOW,
    "pages": {"jax", "flax", "absl"} | _NO_TENSORFLOW,
    "data": {"jax", "flax", "optax", "absl"},
    "models": {"av", "absl"} | _NO_TENSORFLOW,
    "losses": {"av", "absl"} | _NO_TENSORFLOW,
    "engine": {"av", "absl"} | _NO_TENSORFLOW,
}
# The modules that pretraining on synthetic batches loads must do without tensorflow.
WITHOUT_TENSORFLOW = {"options", "manifest", "batches/synthetic", "text/tokenizer", "sources/read", "media/decode"}
WITHOUT_TENSORFLOW |= {"sources/registry", "sources/videos", "sources/webdataset", "paths", "batches/shards_cache"}
# Rooms of a folder: each imports only what stands before it. Files that lie in the folder itself are below all of them.
ROOMS = {
    "data": ["transforms", "text", "index", "media", "sources", "language", "prepare", "inspect", "batches"],
    "serve": ["index", "search", "describe", "monitor", "watch", "web"],
    "finetune": ["examples", "inputs", "kinds", "options", "figures", "reports", "tasks", "commands"],
    "generate": ["models", "flow", "train", "sample", "commands"],
    "encode": ["devices", "media", "frames", "embed", "films", "predict", "commands"],
    "bench": ["measure", "made", "sides", "commands"],
    "engine": ["start", "sharding", "optimizer", "step", "remote", "keeping", "loop"],
}

PACKAGE = sorted(p for folder in FLOOR for p in (ROOT / folder).rglob("*.py"))
ROOMY = [path for path in PACKAGE if path.relative_to(ROOT).parts[0] in ROOMS]


def arrows(path: Path) -> list[tuple[int, str, str]]:
    """All imports of a file as (line, "relative" | "absolute", dotted name from the package root | as written)."""
    found = []
    here = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, "absolute", alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.lineno, "absolute", node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.lineno, "relative", ".".join([*base, name])) for name in names]
    return found


def allowed(source: str, target: str) -> bool:
    return source == target or FLOOR[target] < FLOOR[source]


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_floors(path):
    source = path.relative_to(ROOT).parts[0]
    for line, kind, name in arrows(path):
        first = name.split(".")[0]
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if kind == "relative":
            assert first in FLOOR or first == "__version__", f"{where}: no such folder in the house"
            assert first == "__version__" or allowed(source, first), f"{where}: {source} may not import {first}"
        elif name.startswith("twinreel.configs") and source == "configs":
            continue  # a config file is loaded by its path, as those are that lie elsewhere
        else:
            assert first != "twinreel", f"{where}: imports inside the package are relative"
            assert first not in FLOOR, f"{where}: a bare import of a folder makes a second module"
            assert first not in FORBIDDEN[source], f"{where}: {source} may not use {first}"


@pytest.mark.parametrize("name", sorted(WITHOUT_TENSORFLOW))
def test_light_data_modules_do_without_tensorflow(name):
    for path in [ROOT / "data" / f"{name}.py", *_loaded_by(ROOT / "data" / f"{name}.py")]:
        for line, _, target in arrows(path):
            assert not target.startswith("tensorflow"), f"{path.relative_to(ROOT)}:{line}, loaded by data/{name}.py"


def _loaded_by(path: Path, seen: frozenset[Path] = frozenset()) -> set[Path]:
    """All modules of data/ that a module imports, at its top or inside a function, directly or not."""
    found: set[Path] = set()
    for _, kind, target in arrows(path):
        module = ROOT / (target.replace(".", "/") + ".py")
        if kind == "relative" and target.startswith("data.") and module.is_file() and module not in seen | found:
            found |= {module} | _loaded_by(module, seen | found | {module})
    return found


@pytest.mark.parametrize("path", ROOMY, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_keep_to_their_order(path):
    folder, *inside = path.relative_to(ROOT).parts
    rooms = ROOMS[folder]
    mine = rooms.index(inside[0]) if len(inside) > 1 else -1
    for line, kind, target in arrows(path):
        first, *names = target.split(".")
        if kind == "relative" and first == folder and names and (ROOT / folder / names[0]).is_dir():
            assert rooms.index(names[0]) <= mine, f"{path.relative_to(ROOT)}:{line} imports {target}"


def test_batches_do_not_import_prepare():
    for path in (ROOT / "data" / "batches").glob("*.py"):
        assert not [name for _, _, name in arrows(path) if name.startswith("data.prepare")], path


def test_the_check_itself_finds_a_wrong_arrow(tmp_path):
    assert not allowed("models", "data")
    assert not allowed("finetune", "pretrain") and not allowed("pretrain", "finetune")
    assert not allowed("losses", "engine") and not allowed("evaluate", "pretrain")
    assert allowed("engine", "losses") and allowed("pretrain", "evaluate")
    assert not allowed("engine", "cost") and allowed("plan", "cost")
    inner = ROOT / "models" / "towers" / "vivit.py"
    assert ("relative", "base.errors") in {(kind, name) for _, kind, name in arrows(inner)}


def test_no_file_is_larger_than_a_room():
    for path in [*PACKAGE, ROOT / "__init__.py", ROOT / "__main__.py"]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_utils_anywhere():
    shared = ROOT / "configs" / "common.py"
    words = ("util", "helper", "common")
    assert not [p for p in PACKAGE if any(word in p.stem for word in words) and p != shared]


def test_one_file_alone_looks_inside_of_jax():
    inside = {path.relative_to(ROOT).as_posix() for path in PACKAGE if "jax._src" in path.read_text(encoding="utf-8")}
    assert inside == {"engine/start/join.py"}


def test_nothing_loads_a_pickle():
    for path in PACKAGE:
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text and "pickle.load" not in text and "allow_pickle=True" not in text, path


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions and for the type checker count, too."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE}
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*name.split(".")[: -node.level], *(node.module.split(".") if node.module else [])]
                wanted = [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
                graph[name] |= {target for target in wanted if target in modules and target != name}
    while leaves := [name for name, targets in graph.items() if not targets]:
        graph = {name: targets - set(leaves) for name, targets in graph.items() if name not in leaves}
    assert not graph, f"these files import each other: {graph}"
