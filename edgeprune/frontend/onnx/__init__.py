"""ONNX files in, a module of ATen operators out, which is traced like any other.

load_onnx(content, path, …)     a LoadedModel whose module computes what the file computes
TABLE                           one function per operator, spread over files by family

Guarantee: the module was compared with ONNX Runtime on the file itself before it is returned; operators
that have no function are named with their nodes, all at once. Elsewhere: tracing, coupling and export,
which know nothing of ONNX nodes.
"""
