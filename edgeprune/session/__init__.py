"""What all stages of one run share: its options, progress, measurement target and the dense network.

options              what the run was asked
measurement_target   where latency is measured: this machine or a board
latency_model        how planning predicts milliseconds
exporting            a Trace to a proven ONNX file

Elsewhere: the stages themselves (search, pareto, report), composing them (run).
"""
