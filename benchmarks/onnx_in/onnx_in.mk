# ONNX files as input: imported, compared, cut to half and shipped again.
.PHONY: bench-onnx-in

# Resumes: rows that are in the JSON are not measured again. Rows of wheels are downloaded once.
bench-onnx-in: $(READY)
	$(PY) -m benchmarks.onnx_in.run
