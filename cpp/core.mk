# The information core's own checks; the top-level Makefile includes this file.
#   ctest         C++ tests without Python; `make test` runs them where there is cmake
#   ctest-arm64   the same for aarch64 under qemu-user, where the NEON loops run
#                 (Debian: crossbuild-essential-arm64 qemu-user)
#   sanitize      the same under AddressSanitizer + UndefinedBehaviorSanitizer, then ThreadSanitizer
#   bench-information   times, ratios and plots into benchmarks/results and docs
PY ?= .venv/bin/python

.PHONY: ctest ctest-arm64 sanitize bench-information

ctest:
	cmake -S . -B build/ctest -DCMAKE_BUILD_TYPE=Release
	cmake --build build/ctest --parallel 2
	ctest --test-dir build/ctest --output-on-failure --parallel 2

ctest-arm64:
	cmake -S . -B build/ctest-arm64 -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE=cpp/aarch64.cmake
	cmake --build build/ctest-arm64 --parallel 2
	ctest --test-dir build/ctest-arm64 --output-on-failure

# setarch -R: older ThreadSanitizers cannot place their shadow memory under high-entropy address layouts.
sanitize:
	cmake -S . -B build/asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGEPRUNE_SANITIZE=address,undefined
	cmake --build build/asan --parallel 2
	ctest --test-dir build/asan --output-on-failure
	cmake -S . -B build/tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEDGEPRUNE_SANITIZE=thread
	cmake --build build/tsan --parallel 2
	setarch -R ctest --test-dir build/tsan --output-on-failure

# Other packages' estimators, beside the environment: none of them may change its numpy. Where they do not
# install, their rows say so.
build/estimators:
	-$(PY) -m pip install --quiet --no-deps --only-binary :all: --target $@ \
	  npeet-plus infomeasure sparse numba llvmlite

bench-information: build/estimators
	PYTHONPATH=build/estimators $(PY) -m benchmarks.information.run
