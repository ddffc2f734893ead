"""Measurements that are too long for tests: each module prints a table and writes benchmarks/results.

criteria      which channels to remove: the bake-off, rankings, LeNet-300-100, the starting article accuracy
whole runs of `compress` on the trained examples, 8 bits, validation by person latency       predicted
against measured milliseconds, plans for latency against plans for MACs coverage      real models compressed
to half of their MACs and proven coupling      seconds of coupling and surgery beside Torch-Pruning fuzz
random networks and mutated files information   times of the information core devices       emulated ARM
cores, a sensor stream at fixed rates pages         tables of docs/*.md, written from the results recording
the one reader and writer of results

Run every module from the root of the repository, as `python -m benchmarks.<folder>.<module> --help`. The .mk
file of a folder holds its make targets. No module edits sys.path; what needs tests/support (fuzz.networks)
is run with PYTHONPATH=tests/support, as `make fuzz` does.
"""
