"""The process that `simplify` guards: onnxsim on one file, nothing else. Not to be imported.

    python -P _onnxsim_child.py IN OUT MEMORY_MB

Prints one JSON line on success. Its own memory limit covers what onnxsim and its folding runtime map.
"""

from __future__ import annotations

import json
import sys

NEAR_MB = 64  # libraries are mapped in pieces of up to this size: one that did not fit leaves as much unused


def main(source: str, destination: str, memory_mb: int) -> None:
    """Limit this process, simplify `source`, write `destination`."""
    try:
        import resource
    except ImportError:  # not on this platform; the parent's time limit still holds
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    # onnxsim imports torch when it finds it, for functions that are not used here: 3.4 GB of address
    # space and 1.5 s. Hidden, it does without; where a version insists, it gets it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import onnxsim
    except ImportError:
        del sys.modules["torch"]
        import onnxsim
    import onnx

    model = onnx.load(source)
    simplified, certain = onnxsim.simplify(model)
    if not certain:
        sys.exit("onnxsim could not validate its own result")
    onnx.save(simplified, destination)
    print(json.dumps({"before": len(model.graph.node), "after": len(simplified.graph.node)}))


def at_the_limit(memory_mb: int) -> bool:
    """Whether the address space used so far came near the limit, whatever the failure was then called."""
    try:
        with open("/proc/self/status") as status:
            peak = next(line for line in status if line.startswith("VmPeak"))
        return int(peak.split()[1]) >= (memory_mb - NEAR_MB) << 10
    except MemoryError:
        return True
    except (OSError, StopIteration):  # not on this platform
        return False


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except Exception:
        # An extension that cannot allocate may raise anything, a SystemError without a text included.
        if at_the_limit(int(sys.argv[3])):
            sys.exit("MemoryError")
        raise
