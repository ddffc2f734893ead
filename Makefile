# make demo: from nothing to a compressed, parity-checked, benchmarked model.
# make test: everything that must hold. Both make .venv if it is missing.
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# Processes that run tests side by side. A file of tests stays in one, so that its fixtures are made once; the files
# go out in their order, because "most tests first" would leave the few long ones to the end.
JOBS ?= 2
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder
READY := .venv/.ready
# Idle OpenMP threads must not spin: tests and training share the cores with others.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test lint format examples bench-fashion clean

demo: $(READY)
	.venv/bin/edgeprune compress examples/checkpoints/demo_cnn.safetensors --model examples.nets:demo_cnn \
	  --input-shape 1,28,28 --data examples/demo/fashion-small --max-drop 3 --epochs 3 \
	  --profile-seconds 8 --bench-seconds 3 --front 0 --int8 off \
	  --output demo-edgeprune --force

# pytest comes last: its closing line is what .ci/run shows. Tests that compare measured times run when the others
# are over; both calls are made, and either one's failure is the result.
test: lint
	@if command -v cmake >/dev/null && command -v ctest >/dev/null; then $(MAKE) --no-print-directory ctest; \
	else echo "SKIPPED the C++ tests: cmake is missing (Debian: apt-get install cmake g++)"; fi
	@failed=0; \
	OMP_NUM_THREADS=1 $(PYTEST) tests $(SIDE_BY_SIDE) -m "not device and not timing" || failed=$$?; \
	$(PYTEST) tests -m "timing and not device" || failed=$$?; \
	exit $$failed

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(READY)
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(shell find cpp -name '*.?pp' 2>/dev/null)
	test -x $(PY) || python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

include $(wildcard cpp/*.mk tools/*.mk benchmarks/*/*.mk)

clean:
	rm -rf build dist *-edgeprune .pytest_cache .mypy_cache .ruff_cache
