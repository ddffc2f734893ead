# Real models cut to half of their MACs and proven.
.PHONY: bench-coverage coverage-stale

# AGPL-3.0 and no dependency: only these rows and those of bench-tasks use it.
ULTRALYTICS := ultralytics==8.4.190 opencv-python-headless==5.0.0.93 pyyaml psutil requests urllib3 idna certifi \
  charset-normalizer ultralytics-thop polars polars-runtime-32

# Resumes: rows that are in the JSON are not measured again. FAILED=--failed measures those that did not pass again,
# STALE=--stale those that other code measured, which takes hours after a change.
bench-coverage: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt transformers==5.24.0
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps $(ULTRALYTICS)
	$(PY) -m benchmarks.coverage.run $(FAILED) $(STALE); missed=$$?; \
	$(PY) -m benchmarks.coverage.page --write && exit $$missed

# Which rows other code measured, without measuring any.
coverage-stale: $(READY)
	$(PY) -m benchmarks.coverage.page
