"""Measure and verify on the device: over OpenSSH on a board, or under QEMU without one.

Remote("pi@host")              the OpenSSH client with the user's own configuration (device/ssh.py)
device_bench, device_check     the runner on the board (device/remote.py)
find_sandbox, emulate          the real aarch64 onnxruntime on this machine (device/emulation.py)
diagnose                       what is installed, what is missing, what to do (device/doctor.py)
"""

from __future__ import annotations
