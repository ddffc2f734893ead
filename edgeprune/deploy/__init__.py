"""Boards: connect over OpenSSH or emulate, check what is there, verify files, deliver and roll back.

ssh, remote, preflight, doctor    the connection, the runner on the board, what is installed
emulation, verify                 the aarch64 onnxruntime under QEMU; the same outputs on the target
bundle, shipping                  a release: built, uploaded, proven on the board, made current, rolled back

Elsewhere: timing on this machine (measure), which file of a run to ship (pareto).
"""
