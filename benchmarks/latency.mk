# How well a latency profile predicts whole pruned models; goes on where it stopped.
.PHONY: bench-latency-prediction
LATENCY_NETS ?= fashion_resnet fashion_plain mobilenet_v2 mobilenet_v3_small resnet18 efficientnet_b0

bench-latency-prediction: $(READY)
	for net in $(LATENCY_NETS); do $(PY) -m benchmarks.latency_prediction --net $$net || exit 1; done
	$(PY) -m benchmarks.latency_prediction --table
