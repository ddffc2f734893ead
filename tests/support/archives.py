"""Build `.pt2` archives for tests: a small good one, and edits of it that attack the loader.

Every attack touches `marker` if its payload runs. `FIRES_ON_LOAD` are those that torch.export.load
itself runs, `FIRES_ON_USE` those that run when the loaded program is used.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Members = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Small(nn.Module):
    """A convolution, batch norm, a size computed from the input, a tensor constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.conv(x))) * torch.tensor(2.0)
        return self.head(x.view(x.shape[0], 4, -1).mean(2))


def small_program(**options: Any) -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    free = {"x": {0: torch.export.Dim("batch", min=2)}}
    return torch.export.export(Small().eval(), (torch.randn(2, 1, 6, 6),), dynamic_shapes=free, **options)


def saved(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def members_of(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pack(members: Members, root: str = "archive", compress: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, body in members.items():
            archive.writestr(f"{root}/{name}", body)
    return buffer.getvalue()


class Bomb:
    """Unpickling it creates the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def payload(marker: Path) -> str:
    """An expression that creates the marker file when it is evaluated."""
    return f"open({str(marker)!r}, 'w').close()"


def bomb(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(marker), buffer)
    return buffer.getvalue()


def edit(members: Members, name: str, change: Callable[[Any], None]) -> Members:
    document = json.loads(members[name])
    change(document)
    return {**members, name: json.dumps(document).encode()}


def pickled_weight(members: Members, marker: Path) -> Members:
    def change(config: Any) -> None:
        config["config"]["conv.weight"]["use_pickle"] = True

    first = json.loads(members[WEIGHTS])["config"]["conv.weight"]["path_name"]
    return {**edit(members, WEIGHTS, change), f"data/weights/{first}": bomb(marker)}


def pickled_constant(members: Members, marker: Path) -> Members:
    def change(config: Any) -> None:
        for item in config["config"].values():
            item["use_pickle"] = True

    return {**edit(members, CONSTANTS, change), "data/constants/tensor_0": bomb(marker)}


def legacy_weights(members: Members, marker: Path) -> Members:
    return {**members, "data/weights/model.pt": bomb(marker)}


def legacy_constants(members: Members, marker: Path) -> Members:
    return {**members, "data/constants/model.pt": bomb(marker)}


def _constant_file(members: Members, name: str, body: bytes) -> Members:
    def change(config: Any) -> None:
        item = next(iter(config["config"].values()))
        config["config"]["evil"] = {**item, "path_name": name, "use_pickle": True, "tensor_meta": None}

    return {**edit(members, CONSTANTS, change), f"data/constants/{name}": body}


def opaque_object(members: Members, marker: Path) -> Members:
    return _constant_file(members, "opaque_obj_0", pickle.dumps(Bomb(marker)))


def custom_object(members: Members, marker: Path) -> Members:
    return _constant_file(members, "custom_obj_0", bomb(marker))


def sample_inputs(members: Members, marker: Path) -> Members:
    return {**members, SAMPLES: bomb(marker)}


def size_expression(members: Members, marker: Path) -> Members:
    def change(program: Any) -> None:
        values = program["graph_module"]["graph"]["sym_int_values"]
        next(iter(values.values()))["as_expr"]["expr_str"] = payload(marker)

    return edit(members, MODEL, change)


def placeholder_name(members: Members, marker: Path) -> Members:
    """A default value in the generated `def forward(self, x=…)` runs when the source is executed."""
    new = f"x = {payload(marker)}"
    document = members[MODEL].decode()
    return {**members, MODEL: document.replace('"x"', json.dumps(new)).encode()}


def structure_import(members: Members, marker: Path) -> Members:
    """A tree structure whose default factory is looked up by importing the module that it names."""
    module = marker.parent / "evil_module.py"
    module.write_text(f"{payload(marker)}\nfactory = list\n")
    context = {
        "default_factory_module": "evil_module",
        "default_factory_name": "factory",
        "dict_context": [],
    }
    spec = [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]

    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)

    return edit(members, MODEL, change)


def enum_import(members: Members, marker: Path) -> Members:
    """A dictionary key that claims to be an enum is looked up by importing the module that it names."""
    module = marker.parent / "evil_enum.py"
    module.write_text(f"import enum\n{payload(marker)}\nclass E(enum.Enum):\n    a = 1\n")
    key = {"__enum__": True, "fqn": "evil_enum:E", "name": "a"}
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = [1, {"type": "builtins.dict", "context": json.dumps([key]), "children_spec": [leaf]}]

    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(spec)

    return edit(members, MODEL, change)


def guard_code(members: Members, marker: Path) -> Members:
    def change(program: Any) -> None:
        program["guards_code"] = [f"{payload(marker)} is None"]

    return edit(members, MODEL, change)


def _relu_target(members: Members, target: str) -> Members:
    def change(program: Any) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:
            if "relu" in node["target"]:
                node["target"] = target

    return edit(members, MODEL, change)


def torch_function(members: Members, marker: Path) -> Members:
    """Any attribute path from torch is a call target to the deserialiser: here, pickle's loader."""
    return _relu_target(members, "torch.serialization.pickle.loads")


def file_operator(members: Members, marker: Path) -> Members:
    """aten.from_file creates the file that it maps."""

    def change(program: Any) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:
            if "lift_fresh_copy" in node["target"]:
                node["target"] = "torch.ops.aten.from_file.default"
                node["inputs"] = [
                    {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
                    {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
                    {"name": "size", "arg": {"as_int": 1}, "kind": 1},
                ]

    return edit(members, MODEL, change)


def custom_operator(members: Members, marker: Path) -> Members:
    return _relu_target(members, "torch.ops.mylib.relu.default")


def operator_argument(members: Members, marker: Path) -> Members:
    def change(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][1]
        node["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}

    return edit(members, MODEL, change)


def tensor_name(members: Members, marker: Path) -> Members:
    """A parameter's name is pasted into `getattr(self, "…")` in the generated source, split at its dots."""
    new = f'head.b" + str({payload(marker).removesuffix(".close()")}) + "'
    return {
        **members,
        MODEL: members[MODEL].replace(b'"head.bias"', json.dumps(new).encode()),
        WEIGHTS: members[WEIGHTS].replace(b'"head.bias"', json.dumps(new).encode()),
    }


def compiled_code(members: Members, marker: Path) -> Members:
    return {**members, "data/aotinductor/model/model.so": b"\x7fELF" + bytes(60)}


def native_library(members: Members, marker: Path) -> Members:
    return {**members, "extra/helper.so": b"\x7fELF" + bytes(60)}


def stray_member(members: Members, marker: Path) -> Members:
    return {**members, "code/main.py": payload(marker).encode()}


FIRES_ON_LOAD = (
    pickled_weight,
    pickled_constant,
    legacy_weights,
    legacy_constants,
    opaque_object,
    sample_inputs,
    size_expression,
    placeholder_name,
    structure_import,
    enum_import,
)
FIRES_ON_USE = (guard_code, file_operator, tensor_name)
OTHERS = (
    custom_object,
    torch_function,
    custom_operator,
    operator_argument,
    compiled_code,
    native_library,
    stray_member,
)
