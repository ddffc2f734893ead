# Dense and pruned, float and 8 bits, of the trained networks: accuracy, time, size.
.PHONY: bench-int8
bench-int8: $(READY)
	$(PY) benchmarks/int8.py
