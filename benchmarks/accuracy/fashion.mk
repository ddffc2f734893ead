# The main job on Fashion-MNIST, with the same shape trained from scratch beside it.
.PHONY: bench-fashion
bench-fashion: $(READY)
	$(PY) -m benchmarks.accuracy.fashion
