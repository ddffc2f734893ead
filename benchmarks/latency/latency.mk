# How well a latency profile predicts whole pruned models; resumes where it stopped.
.PHONY: bench-latency-prediction
LATENCY_NETS ?= fashion_resnet fashion_plain fashion_dw mobilenet_v2 mobilenet_v3_small resnet18 efficientnet_b0

bench-latency-prediction: $(READY)
	for net in $(LATENCY_NETS); do $(PY) -m benchmarks.latency.prediction --net $$net || exit 1; done
	$(PY) -m benchmarks.latency.prediction --table

# Planned for latency, for MACs, and Torch-Pruning, at equal loss; then what --speedup 2 gives. Resumes where it stopped.
.PHONY: bench-latency
TRAINED_NETS ?= fashion_resnet fashion_plain fashion_dw
SPEEDUP_NETS ?= resnet18 mobilenet_v2 mobilenet_v3_small efficientnet_b0 $(TRAINED_NETS)

bench-latency: $(READY)
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-pruning==1.6.1
	for net in $(TRAINED_NETS); do $(PY) -m benchmarks.latency.compare --net $$net || exit 1; done
	for net in $(SPEEDUP_NETS); do $(PY) -m benchmarks.latency.compare --speedup $$net || exit 1; done
	$(PY) -m benchmarks.latency.compare --table
