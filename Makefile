# FLchain: everything a person or CI runs. `make` alone lists the targets.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
VENV_MODEL := .venv-model
VENV_ORACLE := .venv-oracle
VENV_FUZZ := .venv-fuzz
# uv, which also writes the lock files, and what lists a package's parts; not needed to use either
VENV_PACKAGES := .venv-packages
PIP := -m pip --disable-pip-version-check install --quiet
# most tests wait for processes: two at a time, each file by one worker, take little more than half as long
SPREAD := -n 2 --dist loadfile
# an editable install maps the top-level packages there are, so a new one asks for a new install
PACKAGES := $(wildcard */__init__.py)

# $(call make_venv,DIR): a fresh environment, or one clear sentence on what is missing
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is not Python 3.10 or newer; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  echo "$(PYTHON) cannot make virtual environments; installing python3-venv"; \
	  { $$sudo apt-get update -qq && $$sudo apt-get install -y -qq python3-venv; } >/dev/null 2>&1 && \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "error: that did not work; do it by hand: apt install python3-venv" >&2; exit 1; }; }
	@echo "creating $(1)"; rm -rf $(1); $(PYTHON) -m venv $(1)
endef

.PHONY: help setup setup-model setup-oracle demo sim bench-chain bench-codecs bench-agent fuzz test test-main test-model test-oracle test-long test-cgroup2 test-python313 test-mixed image test-first-boot test-updates test-image mutants lint counts format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed ## make .venv and install everything the demo and the tests need

setup-model: $(VENV_MODEL)/.installed ## make .venv-model (TensorFlow and the newer TFLite runtime)

setup-oracle: $(VENV_ORACLE)/.installed ## make .venv-oracle (a second COSE library, for the tests)

demo: setup ## run a whole network on this machine
	$(VENV)/bin/flchain demo $(ARGS)

bench-chain: setup ## measure agreement and the light client on this machine
	$(VENV)/bin/flchain bench chain $(ARGS)

bench-codecs: setup ## bytes, rounds and time of every update codec (most of an hour; ARGS=--quick for a minute)
	$(VENV)/bin/flchain bench codecs $(ARGS)

fuzz: $(VENV_FUZZ)/.installed ## coverage-guided garbage for every decoder of updates (FUZZ_S=60 seconds)
	PYTHONPATH=. $(VENV_FUZZ)/bin/python tests/fuzz/fuzz_codecs.py -max_total_time=$(or $(FUZZ_S),60) -max_len=600 $(ARGS)

bench-agent: setup ## measure the agent: shares of the CPU, memory in a round, CPU when idle
	$(VENV)/bin/flchain bench agent $(ARGS)

sim: setup ## run 2,000 simulated networks of 4 to 21 validators under faults (SEEDS=A-B and ARGS for others)
	$(VENV)/bin/flchain sim --seeds $(or $(SEEDS),0-2000) $(or $(ARGS),--validators 4-21 --heights 20)

test: ## run every test
	@$(MAKE) --no-print-directory -j3 setup setup-model setup-oracle
	@# Two cores: the tests in environments of their own run beside the others, and are shown after them.
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	{ $(MAKE) --no-print-directory test-model && $(MAKE) --no-print-directory test-oracle; } >"$$log" 2>&1 & beside=$$!; \
	failed=0; $(MAKE) --no-print-directory test-main || failed=1; \
	if wait $$beside; then grep -E '^=+ .*(passed|failed).* =+$$' "$$log"; else failed=1; cat "$$log"; fi; \
	exit $$failed

test-main: setup ## run the tests that need .venv only, two files at a time (SPREAD= for one after the other)
	$(VENV)/bin/python -m pytest $(SPREAD) $(ARGS)

test-model: setup-model ## run the tests of training and of the model builder, on the newer runtime
	$(VENV_MODEL)/bin/python -m pytest tests/tf tests/edge/flchain_edge/test_tflite.py tests/edge/flchain_edge/test_probe.py $(ARGS)

test-oracle: setup-oracle ## run the tests that read our messages with another library
	$(VENV_ORACLE)/bin/python -m pytest tests/oracle $(ARGS)

test-long: setup ## kill and cut off real miners, cut a device's power 200 times (FLCHAIN_SEED for another schedule)
	FLCHAIN_POWER_CUTS=200 $(VENV)/bin/python -m pytest tests/edge/agent/test_power_cut.py $(ARGS)
	FLCHAIN_KILLS=20 FLCHAIN_CUTS=6 FLCHAIN_REPEATS=2 \
	  $(VENV)/bin/python -m pytest -s tests/system/test_seven_miners.py $(ARGS)

test-cgroup2: setup ## prove shares under cgroup version 2, in an emulated machine with Debian's kernel (ten minutes)
	$(VENV)/bin/python -m tests.vm $(ARGS)

.PHONY: test-docs
test-docs: setup $(VENV_PACKAGES)/.installed ## type the commands of docs/install.md, update.md, flash.md on containers under systemd (root; ARGS="-k bookworm")
	$(VENV)/bin/python -m pytest -s tests/machines/test_docs.py $(ARGS)

test-python313: setup ## run every test under Debian 13's Python 3.13, in a chroot (root; a quarter of an hour)
	$(VENV)/bin/python -m tests.machines.whole_suite trixie $(or $(ARGS),test)

test-mixed: setup $(VENV_PACKAGES)/.installed ## one network over both runtimes, x86-64 and AArch64 (root; four minutes; FLCHAIN_MIXED=short)
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m pytest -s tests/machines/test_mixed_network.py $(ARGS)

test-first-boot: setup $(VENV_PACKAGES)/.installed ## boot boards from a file to training under systemd, both releases (root; ten minutes)
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m pytest -s tests/machines/test_first_boot.py $(ARGS)

test-updates: setup $(VENV_PACKAGES)/.installed ## update a board under systemd: good, bad, forged, full disk, power cuts (root; half an hour)
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m pytest -s tests/machines/test_updates.py $(ARGS)

test-overlay: setup $(VENV_PACKAGES)/.installed ## put the agent into a maker's image file; it installs at its first boot (root; four minutes)
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m pytest -s tests/machines/test_overlay.py $(ARGS)

image: setup ## build the image of a board's card into build/images (BOARD=rpi4, others: flchain image list); as root, after make debs
	$(VENV)/bin/flchain image build $(or $(BOARD),qemu-arm64) $(ARGS)

test-image: image ## boot the image of an emulated board: it enrols, trains, loses power, goes on (half an hour; log in build/test-image)
	@# the emulated board reaches this machine as 10.0.2.2; so do the nodes here, in a network of the test's own
	unshare --net sh -c 'ip link set lo up && ip address add 10.0.2.2/32 dev lo && exec "$$@"' -- \
	  $(VENV)/bin/python -m pytest -s tests/machines/test_image.py $(ARGS)

mutants: setup ## change each rule in small ways and check that the recorded vectors notice (three minutes; ARGS=--list)
	$(VENV)/bin/python -m tests.mutants $(ARGS)

lint: setup ## check style, types, import rules, circles and dead declarations
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m tests.house circles
	$(VENV)/bin/python -m tests.house dead

counts: setup ## count rooms, circles, long files and exceptions (ARGS="--against DIR" for an older checkout beside)
	@$(VENV)/bin/python -m tests.house counts $(ARGS)

format: setup ## put the code into the one format
	$(VENV)/bin/ruff check --fix --exit-zero .
	$(VENV)/bin/ruff format .

lock: $(VENV_PACKAGES)/.installed ## resolve the lock files again, for every platform
	@# pip's and uv's own settings of this machine must not leak into files that others install from
	@uv() { env -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
	  $(VENV_PACKAGES)/bin/uv --no-config pip compile --quiet --universal --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links \
	  --constraint requirements/constraints.in --custom-compile-command 'make lock' "$$@"; }; \
	uv pyproject.toml --extra tools --extra uav --extra dev -o requirements/main.lock; \
	uv pyproject.toml --constraint requirements/main.lock -o requirements/agent.lock; \
	uv pyproject.toml --extra tools --constraint requirements/main.lock -o requirements/tools.lock; \
	uv requirements/model.in -o requirements/model.lock; \
	uv --no-deps requirements/data.in -o requirements/data.lock; \
	uv requirements/oracle.in -o requirements/oracle.lock; \
	uv requirements/fuzz.in -o requirements/fuzz.lock; \
	uv requirements/packages.in -o requirements/packages.lock

.PHONY: debs test-debs
debs: setup $(VENV_PACKAGES)/.installed ## build Debian packages into build/debs (VERSION=, ARGS="--release trixie ...", ARGS=--help)
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m tools.images.debs.cli $(if $(VERSION),--version $(VERSION)) $(ARGS)

test-debs: setup $(VENV_PACKAGES)/.installed ## install, run, upgrade and purge the packages under systemd; needs root (25 minutes; ARGS="-k bookworm")
	PATH="$(CURDIR)/$(VENV_PACKAGES)/bin:$$PATH" $(VENV)/bin/python -m pytest tests/machines/test_machines.py tests/machines/test_packages.py -s $(ARGS)

clean: ## remove the environments and everything generated
	rm -rf $(VENV) $(VENV_MODEL) $(VENV_ORACLE) $(VENV_FUZZ) $(VENV_PACKAGES) build ./*.egg-info \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: locked dependencies change rarely, the editable install is quick and follows pyproject.toml.
$(VENV)/.locked: requirements/main.lock requirements/data.lock
	$(call make_venv,$(VENV))
	@echo "installing into $(VENV) (two to four minutes the first time)"
	@$(VENV)/bin/python $(PIP) --require-hashes -r requirements/main.lock
	@$(VENV)/bin/python $(PIP) --require-hashes --no-deps -r requirements/data.lock
	@touch $@

$(VENV_MODEL)/.locked: requirements/model.lock
	$(call make_venv,$(VENV_MODEL))
	@echo "installing into $(VENV_MODEL) (TensorFlow is 600 MB to fetch)"
	@$(VENV_MODEL)/bin/python $(PIP) --require-hashes -r requirements/model.lock
	@touch $@

$(VENV)/.installed $(VENV_MODEL)/.installed: %/.installed: %/.locked pyproject.toml $(PACKAGES)
	@$*/bin/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV_ORACLE)/.installed: requirements/oracle.lock
	$(call make_venv,$(VENV_ORACLE))
	@$(VENV_ORACLE)/bin/python $(PIP) --require-hashes -r requirements/oracle.lock
	@touch $@

$(VENV_FUZZ)/.installed: requirements/fuzz.lock
	$(call make_venv,$(VENV_FUZZ))
	@$(VENV_FUZZ)/bin/python $(PIP) --require-hashes -r requirements/fuzz.lock
	@touch $@

$(VENV_PACKAGES)/.installed: requirements/packages.lock
	$(call make_venv,$(VENV_PACKAGES))
	@$(VENV_PACKAGES)/bin/python $(PIP) --require-hashes -r requirements/packages.lock
	@touch $@
