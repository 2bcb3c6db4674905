# Everything sets itself up: `make test` on a fresh checkout makes .venv first. Needs Python 3.11+ with venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP   := $(PY) -m pip --disable-pip-version-check --no-input
# Handed to `make demo` and `make crawler`, e.g. ARGS=--script
ARGS  ?=
# Another interpreter: make PYTHON=/path/to/python3.12
PYTHON ?=

# Tests that run side by side: most of their time they wait for real processes.
JOBS ?= 3
LOCK_TOOLS := build/lock-tools
COMPILE := $(LOCK_TOOLS)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url

# Prints the first interpreter that runs and is new enough (a pyenv shim may exist and not run), or says what is missing.
define find_python
for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
	echo "make: Python 3.11 or newer is needed, and none of these is: $(or $(PYTHON),python3.13 python3.12 python3.11 python3)" >&2; \
	echo "make: install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python" >&2; exit 1; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "make: $$python has no venv module with pip in it" >&2; \
	echo "make: install it (Debian, Ubuntu: apt-get install python3-venv) or name another: make PYTHON=/path/to/python" >&2; exit 1; \
fi
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: venv
venv: $(STAMP) ## the environment in .venv, exactly as locked

# The build tools come first, so that what comes as source only is built with locked tools, and nothing unhashed is fetched.
$(STAMP): requirements/build.lock requirements/dev.lock pyproject.toml examples/crawler/pyproject.toml
	@set -e; \
	if ! $(PY) -c 'import pip' 2>/dev/null; then \
		$(find_python); \
		echo "$$python -m venv $(VENV)"; "$$python" -m venv --clear $(VENV); \
	fi
	$(PIP) install --quiet --require-hashes -r requirements/build.lock
	$(PIP) install --quiet --require-hashes --no-build-isolation --use-pep517 -r requirements/dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e . -e examples/crawler
	@touch $@

.PHONY: demo
demo: $(STAMP) ## three sidecars and an etcd, live in the terminal (ARGS=--script: without one)
	$(VENV)/bin/leader-sidecar demo $(ARGS)

.PHONY: crawler
crawler: $(STAMP) ## the example: Masters with a sidecar each, Workers and an etcd (ARGS=--script)
	$(PY) -m crawler.local $(ARGS)

.PHONY: test
test: $(STAMP) ## every test but those that need a cluster, and the coverage gate
	$(PY) -m tests.support.binaries
	$(PY) -m pytest -m "not e2e" -n $(JOBS) --dist loadfile --cov --cov-report=term
	$(PY) -m coverage report --include='sidecar/core/*,sidecar/election/*' --fail-under=100

# Two workers share the cluster; in the order of tests/e2e/conftest.py, and not as xdist would have it.
E2E_RUN := -n 2 --dist loadfile --no-loadscope-reorder --tb=short --durations=25

# Ahead of the tests, which have no time for a compiler: the images, on a machine that reaches no registry all of them.
.PHONY: e2e-images
e2e-images: $(STAMP)
	$(PY) -m tests.e2e.support.images

.PHONY: e2e-smoke
e2e-smoke: e2e-images ## the Helm chart on a kind cluster: install, fail over, uninstall (root, podman; KEEP=1 leaves it)
	$(PY) -m pytest tests/e2e/test_smoke.py -m e2e --tb=short

.PHONY: e2e
e2e: e2e-images ## everything on a kind cluster but the long counts (E2E_KUBECONFIG=...: on that cluster)
	$(PY) -m pytest tests/e2e -m "e2e and not long" $(E2E_RUN)

.PHONY: e2e-full
e2e-full: e2e-images ## the long counts, too
	$(PY) -m pytest tests/e2e -m e2e $(E2E_RUN)

.PHONY: lint
lint: $(STAMP) ## formatting, ruff, mypy, the direction of imports
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

.PHONY: format
format: $(STAMP) ## rewrite the code as `make lint` wants it
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# The messages that we exchange with etcd, and the crawler's; tests fail when they are not fresh.
.PHONY: proto
proto: $(STAMP) ## the generated messages (*_pb2.py) from the .proto files
	$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. sidecar/etcd/rpc.proto sidecar/etcd/admin.proto
	cd examples/crawler && ../../$(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. crawler/crawler.proto

.PHONY: bench
bench: $(STAMP) ## the measured figures of the README, as a table and as JSON
	$(PY) -m benchmarks

.PHONY: bench-kubernetes
bench-kubernetes: e2e-images ## how soon Kubernetes knows of a new leader, on the kind cluster (root, podman; KEEP=1 leaves it)
	$(PY) -m benchmarks.kubernetes $(ARGS)

.PHONY: crawler-faults
crawler-faults: $(STAMP) ## the example under load while leaders hand over, are killed and frozen (ARGS=--quick)
	$(PY) -m tests.support.binaries
	$(PY) -m benchmarks.crawler $(ARGS)

.PHONY: screenshots
screenshots: $(STAMP) ## the pictures of the status page in docs/page (needs Chromium)
	$(PY) -m tests.page.screenshots

.PHONY: model
model: $(STAMP) ## every configuration of the TLA+ model (needs Java 11+)
	$(PY) model/run.py --all

.PHONY: sim-long
sim-long: $(STAMP) ## simulated schedules for at least 1,000 hours of their time
	$(PY) -m tests.sim.long

# The pre-commit hooks are local and use what is locked here, so they have no versions of their own.
.PHONY: lock
lock: ## newest versions into requirements/*.lock, tidy Go modules
	@set -e; $(find_python); "$$python" -m venv --clear $(LOCK_TOOLS)
	$(LOCK_TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet uv
	$(COMPILE) --group build -o requirements/build.lock
	$(COMPILE) pyproject.toml examples/crawler/pyproject.toml --all-extras --group dev --no-emit-package leader-sidecar \
		-c requirements/build.lock -o requirements/dev.lock
	$(COMPILE) pyproject.toml -c requirements/dev.lock -o requirements/runtime.lock
	$(COMPILE) pyproject.toml --extra operator -c requirements/dev.lock -o requirements/operator.lock
	$(COMPILE) examples/crawler/pyproject.toml --no-emit-package leader-sidecar -c requirements/dev.lock -o requirements/crawler.lock
	@for module in tools/go/*/go.mod; do \
		[ -f "$$module" ] || continue; \
		if ! command -v go >/dev/null; then echo "make: no Go here, $$module stays as it is" >&2; continue; fi; \
		echo "go mod tidy in $${module%/go.mod}"; (cd "$${module%/go.mod}" && go mod tidy) || exit 1; \
	done

.PHONY: clean
clean: ## remove everything that make and the tests made, .venv too
	rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
