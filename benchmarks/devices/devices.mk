# The sensor stream at fixed rates: the share of late answers, dense and pruned.
.PHONY: bench-realtime
bench-realtime: $(READY)
	$(PY) -m benchmarks.devices.realtime
	$(PY) -m benchmarks.pages.fill
