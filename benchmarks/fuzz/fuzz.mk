# Random networks and mutated files.
N ?= 1000
START ?= 0
FILES ?= 20000

.PHONY: fuzz fuzz-files

fuzz: $(READY)
	PYTHONPATH=tests/support $(PY) -m benchmarks.fuzz.networks $(N) --start $(START) --json benchmarks/results/fuzz.json

# Mutated files of every kind that the tool reads; resumes where it stopped. Failing inputs go to build/fuzz-files.
fuzz-files: $(READY)
	nice -n 10 $(PY) -m benchmarks.fuzz.files $(FILES)
