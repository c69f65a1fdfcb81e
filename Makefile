# Every target sets up .venv by itself when it is missing or when the dependencies changed.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first Python of this list that is new enough; override with `make venv PYTHON=/path/to/python3.11`.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$candidate"; break; }; done)
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_DIR ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help venv demo bench-model bench-metrics test test-browser test-faults test-ray test-slow lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## set up the virtual environment in .venv (Python 3.11+, pip)

$(STAMP): setup.cfg pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: Python 3.11 or newer is needed; name one with: make venv PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Creating $(VENV) with $$($(PYTHON) --version)"; "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "Installing instbench and its dependencies into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@# ultralytics asks for opencv-python, whose cv2 needs libGL; servers without it get the headless build.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
		echo "cv2 cannot be loaded here (libGL missing?): switching to opencv-python-headless"; \
		$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) \
			--force-reinstall --no-deps opencv-python-headless; \
		$(BIN)/python -c 'import cv2'; }
	@touch $(STAMP)
	@echo "$(VENV) is ready"

demo: $(STAMP) ## score the shipped models, the floor and the ceiling on a small slice (minutes)
	@$(BIN)/python -m instbench demo -o $(DEMO_DIR)

bench-model: $(STAMP) ## time the sampling schedules at both model sizes (about 10 minutes, 16 GB of memory)
	@$(BIN)/python -m reference_model.benchmarking $(BENCH_ARGS)

bench-metrics: $(STAMP) ## time the metrics against their references (about 2 minutes)
	@$(BIN)/python -m metrics.benchmarking $(BENCH_ARGS)

test: export HF_HUB_OFFLINE = 1
test: export YOLO_OFFLINE = true
test: $(STAMP) ## run the tests, without slow ones, browser and network
	@$(BIN)/python -m pytest -q -m "not slow and not browser and not faults and not ray" $(PYTEST_ARGS)

test-slow: export HF_HUB_OFFLINE = 1
test-slow: export YOLO_OFFLINE = true
test-slow: $(STAMP) ## run the slow tests (minutes: real sampling with the shipped weights)
	@$(BIN)/python -m pytest -q -m slow $(PYTEST_ARGS)

test-faults: export HF_HUB_OFFLINE = 1
test-faults: export YOLO_OFFLINE = true
test-faults: $(STAMP) ## kill runs, fill disks, feed hostile files and fuzz the readers; an S3 server is installed if missing
	@$(BIN)/python -c 'import s3fs, moto.server' 2>/dev/null || \
		$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -e '.[faults]' || \
		echo "without s3fs and moto, S3 is not tried"
	@$(BIN)/python -m pytest -q -m faults tests/faults $(PYTEST_ARGS)

test-ray: export HF_HUB_OFFLINE = 1
test-ray: export YOLO_OFFLINE = true
test-ray: $(STAMP) ## test the Ray executor on a small cluster of this machine; Ray is installed if missing
	@$(BIN)/python -c 'import ray' 2>/dev/null || \
		$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -e '.[ray]'
	@$(BIN)/python -m pytest -q -m ray tests/instbench/execution tests/test_readme.py $(PYTEST_ARGS)

test-browser: $(STAMP) ## test the site and the reports in a headless Chromium, which is installed if missing (Debian, root)
	@$(BIN)/python -c 'import playwright' 2>/dev/null || \
		$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -e '.[browser]'
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; \
		else \
			echo "error: chromium is not on the PATH; install it, for example: sudo apt-get install chromium" >&2; exit 2; \
		fi; }
	@$(BIN)/python -m pytest -q -m browser tests/browser $(PYTEST_ARGS)

lint: $(STAMP) ## check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## format the code and apply safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove caches and build outputs (.venv and runs stay)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
