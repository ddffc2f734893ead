# Real models cut to half of their MACs and proven.
.PHONY: bench-coverage coverage-stale

# Resumes: rows that are in the JSON are not measured again. FAILED=--failed measures those that did not pass again,
# STALE=--stale those that other code measured, which takes hours after a change.
bench-coverage: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt transformers==5.24.0
	$(PY) -m benchmarks.coverage.run $(FAILED) $(STALE); missed=$$?; \
	$(PY) -m benchmarks.coverage.page --write && exit $$missed

# Which rows other code measured, without measuring any.
coverage-stale: $(READY)
	$(PY) -m benchmarks.coverage.page
