# One trained network per task through the command line, with Torch-Pruning beside it. Resumes by row.
.PHONY: bench-tasks train-tasks
bench-tasks: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps seglearn==1.2.5 torch-pruning==1.6.1 $(ULTRALYTICS)
	$(PY) -m benchmarks.tasks.run
	$(PY) -m benchmarks.pages.fill

# The committed checkpoints again: minutes for the small ones, half an hour for the detector.
train-tasks: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps seglearn==1.2.5 $(ULTRALYTICS)
	$(PY) -m benchmarks.tasks.train_small
	$(PY) -m benchmarks.tasks.canvases .cache/canvases
	$(PY) -m benchmarks.tasks.train_yolo yolo11n .cache/canvases --minutes 36
