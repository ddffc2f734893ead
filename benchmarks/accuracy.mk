# Accuracy before and after on real data; goes on where it stopped.
.PHONY: bench-accuracy
bench-accuracy: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps seglearn==1.2.5
	$(PY) benchmarks/accuracy.py
	$(PY) benchmarks/accuracy.py --time
	$(PY) -m benchmarks.bakeoff_docs
