# make setup | demo | test | docs | docs-serve | kernels | triton | lint | type | bare | bench | gpu. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The pin comes first and alone: with it, nothing later pulls another build of torch.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test docs docs-serve kernels kernels-avx2 kernels-baseline kernels-threads lint type bare bench gpu triton
setup: $(VENV)/.dev

demo: $(VENV)/.lab
	$(BIN)/muonlab run grokking preset=laptop tasks=add,mul out=runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadgroup

# The docs site, in build/site; a broken link or a bad docstring fails.
docs: $(VENV)/.docs
	$(BIN)/python docs/build.py

docs-serve: $(VENV)/.docs
	$(BIN)/python docs/build.py --serve

# The tests that compare runs, with the kernels of other processors and with two threads (docs/design/same-bytes.md). Those
# that compile are left out: a program's instructions are not torch's kernels.
kernels: kernels-avx2 kernels-baseline kernels-threads
kernels-avx2: export ATEN_CPU_CAPABILITY = avx2
kernels-avx2: export ONEDNN_MAX_CPU_ISA = AVX2
kernels-avx2: export MKL_ENABLE_INSTRUCTIONS = AVX2
kernels-baseline: export ATEN_CPU_CAPABILITY = default
kernels-baseline: export ONEDNN_MAX_CPU_ISA = SSE41
kernels-baseline: export MKL_CBWR = COMPATIBLE
kernels-threads: export OMP_NUM_THREADS = 2
kernels-threads: export OMP_WAIT_POLICY = passive
kernels-avx2 kernels-baseline kernels-threads: $(VENV)/.dev
	$(BIN)/python -m pytest tests/train tests/measure tests/nets tests/studies -m kernels -k 'not compiled and not program'

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

type: $(VENV)/.dev
	$(BIN)/pyright

# The package with torch alone: it imports, trains and resumes.
bare:
	$(PYTHON) -m venv --clear $(VENV)-bare
	$(VENV)-bare/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-bare/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt .
	$(VENV)-bare/bin/python examples/plain_loop.py --steps 40 --width 32 --depth 1 --context 32 --batch 8

# The Triton kernels without a GPU: their numbers in the interpreter, and what the compiler makes of them for GPUs.
triton:
	$(PYTHON) -m venv --clear $(VENV)-triton
	$(VENV)-triton/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-triton/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pytest hypothesis '.[cuda,lab]'
	TRITON_INTERPRET=1 $(VENV)-triton/bin/python -m pytest tests/kernels
	$(VENV)-triton/bin/python -m pytest tests/kernels

bench: $(VENV)/.dev $(VENV)-bench/.bench
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/engine.py --save records/engine/engine.json | tee records/engine/engine.txt
	$(BIN)/python benchmarks/agreement.py | tee records/engine/agreement.txt
	$(BIN)/python benchmarks/engine_table.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/heights.py --save records/engine/heights.json
	$(BIN)/python benchmarks/rounding.py --save records/engine/rounding.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/inspection.py --save records/inspection/gpt2-small.json
	OMP_NUM_THREADS=1 $(VENV)-bench/bin/python benchmarks/optim.py

# An environment of its own: timm brings a torchvision for CUDA, beside which transformers cannot be imported.
$(VENV)-bench/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab,bench]'
	touch $@

# On a machine with a CUDA device, in under eight minutes; writes records/gpu. Elsewhere it says that there is none.
gpu: $(VENV)/.lab
	$(INSTALL) --editable '.[bench]'
	$(BIN)/python benchmarks/gpu.py

$(VENV)/.lab: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "muonlab needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[lab]'
	touch $@

$(VENV)/.docs: $(VENV)/.lab
	$(INSTALL) --editable '.[docs]'
	touch $@

$(VENV)/.dev: $(VENV)/.lab
	$(INSTALL) --editable '.[dev]'
	touch $@
