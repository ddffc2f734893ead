"""Untrusted bytes in, a `LoadedModel` out: what the file is, whether it is safe, what it takes as input.

load_model(path, …)      a .pt2 program, a state dict with a factory, safetensors, or a trusted pickle
from_module(module, …)   a module that is already in memory

Guarantee: no code from a file runs unless `trust_pickle` is given; a program's operators are checked
against a list before it is used. Elsewhere: tracing to the working graph (graph).
"""
