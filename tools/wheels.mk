# Wheels for x86-64 and aarch64, each installed into a fresh environment and used. Included by the Makefile.
# Debian: g++ cmake crossbuild-essential-arm64 qemu-user. The wheels go to dist/.
PY ?= .venv/bin/python

.PHONY: wheels wheel-native

wheels: arm64
	$(PY) tools/wheels.py native aarch64

# The wheel of this machine's own architecture alone.
wheel-native: $(READY)
	$(PY) tools/wheels.py native
