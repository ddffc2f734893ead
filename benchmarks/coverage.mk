# Coupling and surgery held against random networks and against real models.
N ?= 1000
START ?= 0

.PHONY: fuzz bench-coverage bench-coupling

fuzz: $(READY)
	$(PY) benchmarks/fuzz.py $(N) --start $(START) --json benchmarks/results/fuzz.json

# Resumable: rows that are in the JSON are not measured again. FAILED=--failed measures those that did not pass,
# STALE=--stale those that other code measured, which takes hours after a change.
bench-coverage: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt transformers==5.24.0
	$(PY) benchmarks/coverage.py $(FAILED) $(STALE); missed=$$?; \
	$(PY) benchmarks/coverage_summary.py --write && exit $$missed

bench-coupling: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	$(PY) benchmarks/coupling_speed.py
