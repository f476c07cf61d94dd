"""Maps the import package `twinreel` to the repository root; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = [
    "base", "configs", "pages", "data", "models", "losses", "engine", "zoo", "cost", "encode",
    "evaluate", "pretrain", "finetune", "serve", "explain", "generate", "plan", "launch", "bench", "demo", "sweep",
]  # fmt: skip

setup(
    packages=["twinreel"] + [f"twinreel.{name}" for name in find_packages(".") if name.split(".")[0] in FOLDERS],
    package_dir={"twinreel": "."},
    package_data={
        "twinreel": ["py.typed"],
        "twinreel.pages": ["templates/*"],
        "twinreel.evaluate.protocols": ["templates.json"],
        "twinreel.serve.web": ["static/*"],
    },
)
