# Dense and pruned, float and 8 bits, of the trained networks: accuracy, time, size.
.PHONY: bench-int8
bench-int8: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps seglearn==1.2.5
	$(PY) -m benchmarks.accuracy.int8
