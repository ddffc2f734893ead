# Accuracy before and after on real data; resumes where it stopped.
.PHONY: bench-accuracy
bench-accuracy: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps seglearn==1.2.5
	$(PY) -m benchmarks.accuracy.runs
	$(PY) -m benchmarks.accuracy.runs --time
	$(PY) -m benchmarks.pages.fill
