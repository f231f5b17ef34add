"""What a module from outside is known by: a sha256 of its tensors, all else it holds, and its code.

Two modules of one sha256 compute the same, as far as that is in themselves: what they read from
files and other packages nobody can see. What cannot be told apart is refused.
"""

import re
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from sys import stdlib_module_names
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from diffuse import conditions, sealed
from diffuse.encoders.encoder import Encoder
from diffuse.errors import reason

PLAIN = (type(None), bool, int, float, complex, str)
DATA = (*PLAIN, bytes, Tensor, list, tuple, dict, set, FunctionType, partial)
OF_ANY = {*vars(nn.Module()), "_compiled_call_impl"}  # what modules hold of themselves
HOOKS = ("_forward_pre_hooks", "_forward_hooks")  # of that, what a forward pass depends on
CHANGING = re.compile(r"__torch__[\w.]*|0x[0-9a-f]+| # \S+:\d+:\d+$", re.MULTILINE)

Memo = dict[int, tuple[Any, Any]]  # id -> the object, which stays alive, and what was said of it


def attributes(net: nn.Module, name: str) -> dict[str, Any]:
    """Of all that its modules hold besides parameters and buffers: its name -> what it is.

    To be asked before the net has seen an image, because it may keep what it makes of one. `name`
    is the net's, for the ValueError that tells of something that has no sha256, say a lock.
    """
    tensors = chain(net.named_parameters(), net.named_buffers())
    memo: Memo = {id(tensor): (tensor, f"tensor {key}") for key, tensor in tensors}
    memo |= {id(module): (module, f"module {path}") for path, module in net.named_modules()}
    held = {
        f"{path}.{key}".lstrip("."): value
        for path, module in net.named_modules()
        for key, value in _held(module).items()
    }
    return _each(held, name, memo)


def sha256(net: nn.Module, name: str, call: partial[Any], attributes: Mapping[str, Any]) -> str:
    """Of all its tensors, `attributes`, its arguments and its code; ValueError if it has none.

    Code is that of its classes and of the function that makes it.
    """
    tensors = {**_state(net, name), **dict(net.named_parameters()), **dict(net.named_buffers())}
    parts = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in map(type, net.modules())}
    return conditions.key({
        "stated": [net.sha256, net.record()] if isinstance(net, Encoder) else [],
        "options": call.keywords,
        "tensors": _each(tensors, name, {}),
        "attributes": attributes,
        "code": {
            name: conditions.sources(thing) for name, thing in ({"": call.func} | parts).items()
        },
    })  # fmt: skip


def _state(net: nn.Module, name: str) -> dict[str, Any]:
    """What would be saved of it: quantized layers have their weights nowhere else."""
    try:
        return dict(net.state_dict())
    except Exception as error:  # code of others may raise anything
        raise ValueError(f"{name} has no state_dict: {reason(error)}") from error


def _each(values: Mapping[str, Any], name: str, memo: Memo) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        try:
            found[key] = _said(value, memo)
        except Exception as error:  # objects of others may raise anything
            kind = type(value).__name__
            raise ValueError(
                f"{name}: {key} ({kind}) has no sha256, and without it two encoders would pass "
                f"for one: {reason(error)}"
            ) from error
    return found


def _held(module: nn.Module) -> dict[str, Any]:
    """What it holds that no state_dict has; of torch's own modules, data and functions only."""
    own = {key: value for key, value in vars(module).items() if key not in OF_ANY}
    hooks = {key: [*getattr(module, key).values()] for key in HOOKS}
    kind = type(module).__module__
    if isinstance(module, torch.jit.ScriptModule):
        own = {"program": _Program(module)}
    elif isinstance(module, fx.GraphModule):
        kinds = (Tensor, torch.ScriptObject)
        own = {key: value for key, value in own.items() if isinstance(value, kinds)}
        own = {**own, "code": module.code}
    elif kind.startswith("torch._dynamo"):  # torch.compile's: the module is inside
        own = {}
    elif kind.partition(".")[0] == "torch":
        own = {key: value for key, value in own.items() if isinstance(value, DATA)}
    return own | {key: value for key, value in hooks.items() if value}


class _Program:
    """A TorchScript module, or its part, as the graphs of its methods and what these read."""

    def __init__(self, module: Any) -> None:
        methods = sorted(module._c._method_names())
        self.graphs = [module._c._get_method(method).inlined_graph for method in methods]
        tensors = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        known = {key for key, _ in chain(module.named_children(), *tensors)}
        read = {key for graph in self.graphs for key in _read(graph)} - known
        self.values = {key: getattr(module, key) for key in sorted(read)}


def _read(graph: Any) -> Iterator[str]:
    """The attributes that a graph reads of its first input, which is the module."""
    me = next(graph.inputs()).debugName()
    for node in graph.findAllNodes("prim::GetAttr"):
        if node.input().debugName() == me:
            yield node.s("name")


def _graph(graph: Any) -> list[Any]:
    """Its text without names that change from process to process, and its constants."""
    constants = [n for n in graph.findAllNodes("prim::Constant") if n.hasAttribute("value")]
    values = [getattr(node, node.kindOf("value"))("value") for node in constants]
    return [CHANGING.sub("", graph.str(False)), values]


def _said(value: Any, memo: Memo) -> Any:
    """Of anything, something short for JSON that is the same in every process."""
    if type(value) in PLAIN:
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, Tensor) and id(value) not in memo:
        return _tensor(value)
    if id(value) not in memo:
        memo[id(value)] = value, "itself"
        parts = _parts(value)
        memo[id(value)] = value, conditions.key({"": [_said(part, memo) for part in parts]})
    return memo[id(value)][1]


def _tensor(value: Tensor) -> str:
    if value.is_quantized:
        digests = [sealed.digest({"": x}) for x in (value.int_repr(), value.dequantize())]
        return f"{value.dtype} {value.qscheme()} {digests}"
    if value.layout != torch.strided:
        raise ValueError(f"it is {value.layout}, make it dense")
    return sealed.digest({"": value.resolve_conj().resolve_neg()})


def _parts(value: Any) -> list[Any]:
    """What an object consists of: things of which the same can be asked, and words."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if type(value) in (list, tuple):
        words = all(type(each) is str for each in value)
        return [kind, *(sorted(value) if words else value)]  # diffusers lists words out of a set
    if type(value) is dict:
        return [kind, *chain(*value.items())]
    if isinstance(value, (set, frozenset)):
        return [kind, *sorted(str(_said(each, {})) for each in value)]
    if type(value) is bytes:
        return [kind, torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else ""]
    if isinstance(value, (type, FunctionType)):
        return _code(value)
    if isinstance(value, torch.jit.ScriptFunction):
        return [kind, *_graph(value.inlined_graph)]
    if isinstance(value, _Program):
        return [kind, value.values, *map(_graph, value.graphs)]
    if isinstance(value, nn.Module):
        return [kind, type(value), _held(value), dict(value.state_dict()), *value.children()]
    if isinstance(value, (ModuleType, RemovableHandle)):
        return [kind, getattr(value, "__name__", "")]
    if isinstance(value, weakref.ref):
        return [kind, value()]
    return [kind, *_reduced(value)]


def _code(thing: Any) -> list[Any]:
    """The file of a class or function, and what a function has besides; of Python's, its name."""
    named = f"{thing.__module__}.{thing.__qualname__}"
    if (thing.__module__ or "").partition(".")[0] in stdlib_module_names:
        return [named]
    files = conditions.sources(thing)
    if not files or isinstance(thing, type):
        return [named, files]
    cells = [cell.cell_contents for cell in thing.__closure__ or ()]
    return [named, files, thing.__defaults__, thing.__kwdefaults__, cells]


def _reduced(value: Any) -> list[Any]:
    """How pickle would take it apart; TypeError if pickle could not."""
    taken = value.__reduce_ex__(2)
    if isinstance(taken, str):
        return [taken]
    return [list(part) if isinstance(part, Iterator) else part for part in taken]
