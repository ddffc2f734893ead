# Coupling and surgery held against random networks and against real models.
N ?= 1000

.PHONY: fuzz bench-coverage

fuzz: $(READY)
	$(PY) benchmarks/fuzz.py $(N) --json benchmarks/results/fuzz.json

bench-coverage: $(READY)
	$(PY) benchmarks/coverage.py
