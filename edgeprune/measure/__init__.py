"""Time ONNX files, here or on a board: the runner, its host side, the statistics of its samples.

run_bench (host)     interleaved rounds of several files, ratios with intervals
why (why)            compares two files operator by operator and reports where the time goes
staircase            the block of channel widths that this machine's kernels prefer

Elsewhere: predicting the latency of a plan (latency), a board over ssh (deploy).
"""
