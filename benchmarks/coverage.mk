# Coupling and surgery held against random networks and against real models.
N ?= 1000
START ?= 0

.PHONY: fuzz bench-coverage bench-coupling

fuzz: $(READY)
	$(PY) benchmarks/fuzz.py $(N) --start $(START) --json benchmarks/results/fuzz.json

# Resumable: rows that are in the JSON are not measured again. FAILED=--failed measures those that did not pass.
bench-coverage: $(READY)
	$(PY) benchmarks/coverage.py $(FAILED)

bench-coupling: $(READY)
	$(PY) benchmarks/coupling_speed.py
