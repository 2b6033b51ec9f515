# Two commands to start with:  make demo   make test
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SOURCES := stl_deploy exporters energy tests examples benchmarks docs
RUNS ?= runs/digits runs/mnist runs/fashion_mnist
MCU_RUNS ?= runs/digits
OLDEST ?= tests
BENCHMARKS ?= onnx_speed c_speed training loihi reference counting whole_ways

.PHONY: demo test quick lint types lava check gpu triton gpu-interpreted readme parity runtimes quantisation bench bench-peers study study-small conformance published explore hunt coverage mcu compilers packages fpga docs tutorials screens dist wheel-demo oldest clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.installed ## train, fold, export, verify, simulate and cost the digits network
	$(BIN)/stl-deploy run digits -o runs/digits --overwrite

test: $(VENV)/.dev lava ## set up what the tests need and run all but the nightly ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${TEST_WORKERS:-2} --dist worksteal -m "not nightly"

quick: $(VENV)/.dev ## the tests that take no training: a minute and a half of two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${TEST_WORKERS:-2} --dist worksteal -m "not slow and not nightly"

lint: $(VENV)/.dev ## style
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.dev build/types ## type annotations, strictly
	MYPYPATH=build/types $(BIN)/mypy -p stl_deploy -p benchmarks -p examples

.PHONY: build/types
build/types: # the package as one folder, as mypy and the site read it
	@rm -rf $@ && mkdir -p $@/stl_deploy
	@ln -s $(CURDIR)/stl_deploy/* $(CURDIR)/exporters $(CURDIR)/energy $@/stl_deploy/

check: lint types test ## everything that must hold before a change is taken

lava: $(VENV)/.dev ## Lava's side environment, if a Python 3.10 is on the machine (once; 5.8 GB)
	@$(BIN)/python -m tests.lava_if_possible

bench: $(VENV)/.dev ## speed, as ratios measured side by side in one run: BENCHMARKS="onnx_speed ..." for some
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

bench-peers: $(VENV)/.dev ## training against snnTorch, SpikingJelly, Norse and Sinabs; each gets an environment of its own
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.peers

study: $(VENV)/.dev ## do learned thresholds help? data from $$STL_DEPLOY_DATA, else downloaded (one to two hours of one core)
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.study full --publish

study-small: $(VENV)/.dev ## the study in small, on digits (about 5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.study small

parity: $(VENV)/.dev ## ONNX against the reference, spike by spike, of those of RUNS that are there (real MNIST from $$STL_DEPLOY_DATA)
	$(BIN)/python -m benchmarks.onnx_parity $(or $(wildcard $(RUNS)),runs/digits) -o docs/measurements

runtimes: $(VENV)/.dev ## ten networks' ONNX in OpenVINO, IREE, tract and emx C; each gets an environment of its own (apt: gcc)
	$(BIN)/python -m benchmarks.runtimes -o docs/measurements

quantisation: $(VENV)/.dev lava ## what Loihi's integers cost, by threshold form, beside real Lava: RUNS="runs/digits ..."
	$(BIN)/python -m benchmarks.quantisation $(RUNS) -o docs/measurements

gpu: $(VENV)/.dev ## on a machine with a CUDA card: kernels, spikes, resume and digits there, then speed and memory
	$(BIN)/python -m pytest -q tests/nn/test_cuda_scan.py tests/nn/test_gpu.py
	$(BIN)/python -m benchmarks.gpu

triton: $(VENV)/.dev ## Triton, with which make test runs the CUDA kernels in its interpreter, on the CPU (0.7 GB)
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/python -m pip install --quiet 'triton>=3.3'

gpu-interpreted: triton ## the tests of the CUDA kernels alone, in Triton's interpreter
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/nn/test_cuda_scan.py

published: $(VENV)/.dev ## published neurons and whole networks: captured, in ONNX, costed
	$(BIN)/python -m benchmarks.published_neurons -o docs/measurements
	$(BIN)/python -m benchmarks.published_networks -o docs/measurements

conformance: $(VENV)/.dev ## what other frameworks mean by a NIR file; each gets an environment of its own
	$(BIN)/python -m tests.conformance
	$(BIN)/python -m tests.conformance.capture

mcu: $(VENV)/.dev ## networks in C on emulated Cortex-M0+, M4, M7, M33 and RV32IMC (apt: gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc)
	$(BIN)/python -m benchmarks.mcu $(MCU_RUNS) -o docs/measurements

compilers: $(VENV)/.dev ## the C's spikes by every gcc and clang here, -O1 to -O3 and with this machine's vectors (apt: gcc-12 gcc-13 gcc-14 clang)
	$(BIN)/python -m benchmarks.c_compilers -o docs/measurements

packages: $(VENV)/.dev ## every package of the digits network in C, built by its own tool where that is installed (pip: platformio idf-component-manager)
	$(BIN)/python -m benchmarks.packages $(firstword $(RUNS))

fpga: $(VENV)/.dev ## RUNS on FPGA="DEVICE LANES": every spike simulated, placed and routed (apt: verilator g++ yosys nextpnr-ecp5 nextpnr-ice40 fpga-trellis fpga-icestorm)
	$(BIN)/python -m benchmarks.fpga $(firstword $(RUNS)) $(or $(FPGA),ecp5-25f 16) --netlist 100

explore: $(VENV)/.dev ## the property tests with examples that nobody has seen (make test draws the same ones every time)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${TEST_WORKERS:-2} -m hypothesis --hypothesis-profile=explore

hunt: $(VENV)/.dev lava triton ## the nightly tests; damage of every input format (MUTANTS=10000 each), ends of every verb, bad surroundings
	-@$(BIN)/stl-deploy witness install xylosim # without a C++ compiler its tests are skipped
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $${TEST_WORKERS:-2} --dist worksteal -m nightly
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hunt --mutants $(or $(MUTANTS),10000) $(HUNT)

coverage: $(VENV)/.dev ## which lines and branches of the product the tests run
	@mkdir -p build && rm -f build/coverage*
	-OMP_NUM_THREADS=1 $(BIN)/python -m coverage run --parallel-mode -m pytest -n $${TEST_WORKERS:-2} --timeout 900 $(TESTS)
	-$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --ignore-errors --skip-covered --sort=cover

docs: $(VENV)/.docs build/types ## the site into build/site, strictly: snippets run, links lead somewhere, every name is documented
	$(BIN)/python docs/snippets.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

tutorials: $(VENV)/.docs ## every snippet of the documentation, also of pages that need another framework (in its own environment)
	$(BIN)/python docs/snippets.py --all

screens: docs demo ## pictures of site and report in build/, at 390 and 1280 pixels, dark and printed, by a headless Chromium
	$(BIN)/python docs/screens.py

dist: build/tools/.ready ## the sdist and the wheel, checked
	@rm -rf dist
	build/tools/bin/python -m build --outdir dist . >build/tools/build.log 2>&1 || { cat build/tools/build.log; exit 1; }
	build/tools/bin/python -m twine check --strict dist/*
	build/tools/bin/check-wheel-contents dist/*.whl

wheel-demo: dist ## the wheel's own demo, from an environment that holds the wheel and what it asks for
	@rm -rf build/wheel && $(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[fast]"
	cd build/wheel && PYTHONWARNINGS=error bin/stl-deploy run digits --pretrained --no-lava -o run

oldest: $(VENV)/.dev ## the tests with the oldest release of every dependency that is allowed (Python 3.11)
	@mkdir -p build && $(BIN)/python -m tests.oldest >build/oldest.txt
	@rm -rf build/oldest && python3.11 -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -r build/oldest.txt
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -n $${TEST_WORKERS:-2} -W default::DeprecationWarning -W default::FutureWarning $(OLDEST)

readme: $(VENV)/.installed ## run the demo and refresh its numbers and picture in README.md
	$(BIN)/python docs/update_readme.py

clean: ## remove the virtual environment and caches (run folders stay)
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.docs: $(VENV)/.dev
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@

build/tools/.ready: pyproject.toml
	@mkdir -p build && $(PYTHON) -m venv build/tools
	@build/tools/bin/python -m pip install --quiet --disable-pip-version-check 'build>=1.2' 'twine>=6' 'check-wheel-contents>=0.6'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stl-deploy needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "installing stl-deploy into $(VENV) ..."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[fast]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "installing stl-deploy and its development tools into $(VENV) ..."
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed
