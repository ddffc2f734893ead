"""Give an exported network other widths without exporting it again.

The network is exported as it is and once or twice with other widths; how every stored size
(dimensions of weights, numbers in shape constants and attributes) moved with the widths tells which
channel_map it follows. From then on a file of any widths is a small rewrite of the first export that takes
milliseconds instead of seconds. All files share one file of weights, each tensor in its own place.

Guarantee: the last export is rebuilt by what was learned and must come out with equal sizes.
Elsewhere: which widths (measuring). The weights are not those of a pruned network: only times are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.coupling.components import BoolArray, Couplings
from edgeprune.errors import BenchError
from edgeprune.export.export import export_onnx
from edgeprune.graph.trace import Trace, reexport
from edgeprune.surgery.cut import cut

IntArray = npt.NDArray[np.int64]
PAGE, INLINE = 4096, 1024  # external data is mapped by pages; small tensors stay in the file
BLOB = "weights.bin"


@dataclass(frozen=True)
class Follows:
    """A stored number that is `times` the kept count of a channel map; constant for None."""

    dense: int
    channel_map: int | None = None
    times: int = 1

    def at(self, kept: IntArray) -> int:
        return self.dense if self.channel_map is None else self.times * int(kept[self.channel_map])


class Resizable:
    """An exported network whose widths can be chosen.

    Raises:
        BenchError: a size follows no channel_map, so that the network has to be exported for each width.
    """

    def __init__(self, traced: Trace, couplings: Couplings, folder: Path, *, seed: int = 0) -> None:
        import onnx

        self.couplings, self.folder = couplings, folder
        trials = [np.zeros(couplings.count, bool), *trial_widths(couplings, seed)]
        self._kept = [couplings.kept(removed) for removed in trials]
        exported = []
        for n, removed in enumerate(trials):
            path = folder / f"trial{n}.onnx"
            small = cut(traced, couplings, removed) if removed.any() else traced
            export_onnx(reexport(small.graph, small.inputs, small.dynamic), path)
            exported.append(onnx.load(path))
            path.unlink()
        self.model = exported[0]
        self._dense = {t.name: onnx.numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self._learn(exported)
        self._place_weights()
        self._prove(exported[-1], self._kept[-1])

    def write(self, path: Path, kept: IntArray) -> None:
        """Write the network with `kept[e]` indices of each channel_map e to a file in the folder."""
        import onnx

        onnx.save(self.build(kept), path)

    def weight_dims(self, name: str) -> tuple[Follows, ...]:
        """What each dimension of an initializer follows."""
        return self._shapes[name]

    def build(self, kept: IntArray) -> Any:
        """The model with other widths, weights external."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._bare)
        for name in self._dense:
            shape = [f.at(kept) for f in self._shapes[name]]
            values = self._numbers.get(name)
            if values is not None:
                data = np.array([f.at(kept) for f in values], self._dense[name].dtype).reshape(shape)
            elif name not in self._offsets or np.prod(shape) * self._dense[name].itemsize < INLINE:
                data = self._dense[name].reshape(-1)[: int(np.prod(shape))].reshape(shape)
            else:
                model.graph.initializer.append(self._external(name, shape))
                continue
            model.graph.initializer.append(onnx.numpy_helper.from_array(data.copy(), name))
        for index, position, follows in self._attributes:
            attribute = model.graph.node[index].attribute[position]
            if attribute.type == onnx.AttributeProto.INT:
                attribute.i = follows[0].at(kept)
            else:
                del attribute.ints[:]
                attribute.ints.extend(f.at(kept) for f in follows)
        return model

    def _external(self, name: str, shape: Sequence[int]) -> Any:
        import onnx

        array = self._dense[name]
        tensor = onnx.TensorProto(name=name, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        length = int(np.prod(shape)) * array.itemsize
        for key, value in (("location", BLOB), ("offset", self._offsets[name]), ("length", length)):
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        return tensor

    def _learn(self, exported: Sequence[Any]) -> None:
        import onnx

        graphs = [e.graph for e in exported]
        kinds = [[(n.op_type, n.name) for n in g.node] for g in graphs]
        names = [[t.name for t in g.initializer] for g in graphs]
        if any(k != kinds[0] for k in kinds) or any(sorted(n) != sorted(names[0]) for n in names):
            raise BenchError("the exported graph changes its form with its widths")
        tensors = [{t.name: t for t in g.initializer} for g in graphs]
        self._shapes: dict[str, tuple[Follows, ...]] = {}
        self._numbers: dict[str, tuple[Follows, ...]] = {}
        for name, dense in self._dense.items():
            shapes = [tuple(t[name].dims) for t in tensors]
            if any(len(s) != len(shapes[0]) for s in shapes):
                raise BenchError(f"{name} changes its rank with the widths")
            self._shapes[name] = tuple(self._follow(sizes, name) for sizes in zip(*shapes, strict=True))
            if dense.dtype.kind in "iu" and dense.size:
                arrays = [onnx.numpy_helper.to_array(t[name]).reshape(-1) for t in tensors]
                if any(len(a) != len(arrays[0]) for a in arrays):
                    continue  # a table of indices: its leading part stays valid or the proof below fails
                if any((a != arrays[0]).any() for a in arrays):
                    columns = zip(*(a.tolist() for a in arrays), strict=True)
                    self._numbers[name] = tuple(self._follow(c, name) for c in columns)
        self._attributes: list[tuple[int, int, tuple[Follows, ...]]] = []
        for index, nodes in enumerate(zip(*(g.node for g in graphs), strict=True)):
            for position, dense_one in enumerate(nodes[0].attribute):
                if dense_one.type not in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS):
                    continue
                all_of = [n.attribute[position] for n in nodes]
                ints = [[a.i] if a.type == onnx.AttributeProto.INT else list(a.ints) for a in all_of]
                if any(i != ints[0] for i in ints):
                    followed = tuple(self._follow(c, nodes[0].name) for c in zip(*ints, strict=True))
                    self._attributes.append((index, position, followed))

    def _follow(self, sizes: Sequence[int], name: str) -> Follows:
        """The channel_map whose kept counts explain the sizes of one number in all exports."""
        if len(set(sizes)) == 1:
            return Follows(int(sizes[0]))
        best: Follows | None = None
        for channel_map, dense_size in enumerate(self._kept[0]):
            if dense_size <= 0 or sizes[0] % dense_size:
                continue
            times = int(sizes[0] // dense_size)
            fits = all(s == times * int(k[channel_map]) for s, k in zip(sizes, self._kept, strict=True))
            if fits and (best is None or times < best.times):
                best = Follows(int(sizes[0]), channel_map, times)
        if best is None:
            raise BenchError(f"{name}: the size {sizes[0]} follows no removable dimension")
        return best

    def _place_weights(self) -> None:
        """Write the weights once, each on a page of its own; keep the model without them."""
        import onnx

        self._offsets: dict[str, int] = {}
        with (self.folder / BLOB).open("wb") as blob:
            for name, array in self._dense.items():
                if array.dtype.kind != "f" or array.nbytes < INLINE:
                    continue
                blob.write(b"\0" * (-blob.tell() % PAGE))
                self._offsets[name] = blob.tell()
                blob.write(np.ascontiguousarray(array).tobytes())
        self._bare = onnx.ModelProto()
        self._bare.CopyFrom(self.model)
        del self._bare.graph.initializer[:]
        del self._bare.graph.value_info[:]

    def _prove(self, wanted: Any, kept: IntArray) -> None:
        import onnx

        built = self.build(kept)
        sizes = [{t.name: tuple(t.dims) for t in m.graph.initializer} for m in (built, wanted)]
        values = [
            {t.name: onnx.numpy_helper.to_array(t).tolist() for t in m.graph.initializer if t.data_type == 7}
            for m in (built, wanted)
        ]
        if sizes[0] != sizes[1] or values[0] != values[1]:
            raise BenchError("the network cannot be given other widths without exporting it again")


def trial_widths(couplings: Couplings, seed: int) -> list[BoolArray]:
    """Two or three removals under which any two different channel maps have different sizes at least once."""
    rng = np.random.default_rng(seed)
    groups = int(couplings.group.max(initial=-1)) + 1
    vectors = [tuple(np.sort(v).tolist()) for v in couplings.channel_maps]
    fewest, best = len(vectors) + 1, list[BoolArray]()
    for attempt in range(60):
        shares = [rng.permutation(np.linspace(0.4, 0.9, max(groups, 1))) for _ in range(2 + attempt // 30)]
        tried = [keep_shares(couplings, share) for share in shares]
        kept = np.stack([couplings.kept(removed) for removed in tried])
        sizes = {(len(v), *k) for v, k in zip(vectors, kept.T.tolist(), strict=True)}
        alike = len(set(vectors)) - len(sizes)
        if alike < fewest:
            fewest, best = alike, tried
        if alike <= 0:
            break
    return best


def keep_shares(couplings: Couplings, shares: npt.NDArray[np.float64]) -> BoolArray:
    """Removal that keeps the first `shares[g]` of each group's components, one at least everywhere."""
    removed = np.zeros(couplings.count, bool)
    for g, share in enumerate(shares):
        rows = np.flatnonzero(couplings.group == g)
        removed[rows[max(1, round(share * len(rows))) :]] = True
    for channel_map in couplings.emptied(removed):
        vector = couplings.channel_maps[channel_map]
        removed[vector[vector >= 0][0]] = False
    return removed
