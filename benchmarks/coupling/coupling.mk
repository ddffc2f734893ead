# Seconds of coupling and surgery beside Torch-Pruning.
.PHONY: bench-coupling
bench-coupling: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	$(PY) -m benchmarks.coupling.speed
