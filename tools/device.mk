# The arm64 sandbox and what needs it. Included by the Makefile; PY is its Python.
PY ?= .venv/bin/python

.PHONY: arm64 test-device bench-arm64

# A real aarch64 Python with onnxruntime under QEMU, in .arm64/ (about 250 MB).
arm64: $(READY)
	$(PY) tools/arm64.py

# Everything that needs the sandbox or an OpenSSH server; installs the server where it is missing.
test-device: arm64
	command -v sshd >/dev/null || test -x /usr/sbin/sshd || (apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-server)
	$(PY) -m pytest tests -m device --no-header

# Instructions per inference on three cores of the runs (or ONNX files) in MODELS, as a table and as JSON.
MODELS ?= $(wildcard *-edgeprune)
bench-arm64: arm64
	$(PY) -m benchmarks.devices.arm64 $(MODELS)
