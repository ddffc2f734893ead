# Coverage of the bounds on what was lost, alone and through the search; resumes where it stopped.
.PHONY: bench-bounds
bench-bounds: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check matplotlib
	$(PY) -m benchmarks.bounds.coverage
