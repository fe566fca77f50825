"""A steerable network as ONNX can take it: plain torch inside, plain tensors out of every module.

escnn's modules pass GeometricTensors, a tensor and its field type, which a traced graph cannot return and in which
torch's hooks see no tensor. `opened` makes a copy of a network in which

- every module of escnn that has a torch form is that form (`export()`: a steerable convolution is a Conv2d with its
  filters written out), and every other one keeps its own forward pass;
- every module that gives a GeometricTensor shows hooks the plain tensor, while the code around it, which may read
  `.tensor` or `.type`, still gets the GeometricTensor.

Module paths stay what they are.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection
from typing import Any

from geed_exporters.errors import NotExportable
from geed_exporters.export import Array

INDICES = re.compile(r"^(in_|out_|input_|output_)?indices_|_indices$")


def copied(net: Any) -> Any:
    """Return a deep copy of a network, in eval mode, which shares the original's field types."""
    import torch
    from escnn.nn import FieldType

    # groups and representations are heavy, cached by identity, and never change
    known: dict[int, Any] = {
        id(v): v for module in net.modules() for v in vars(module).values() if isinstance(v, FieldType)
    }
    # put in eval mode outside no_grad, escnn's filters carry the history of their making, which torch refuses to copy
    known |= {id(b): b.detach().clone() for b in net.buffers() if not b.is_leaf}
    with torch.no_grad():
        return copy.deepcopy(net, known).eval()


def opened(net: Any, geometric: Collection[str]) -> Any:
    """Return a copy of the network that takes a plain tensor and in which every module shows hooks plain tensors.

    Parameters
    ----------
    net : nn.Module
        It is left as it is.
    geometric
        Paths of the modules that give a GeometricTensor, as `run` finds them.
    """
    from escnn.nn import EquivariantModule

    model = copied(net)
    steerable = [path for path, module in model.named_modules() if isinstance(module, EquivariantModule)]
    plain: dict[str, Any] = {}
    for path in steerable:
        if any(other != path and (not path or other.startswith(f"{path}.")) for other in steerable):
            continue  # a container
        original = model.get_submodule(path)
        form = plain_form(original)
        if form is not None:
            if not path:
                return form
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, form)
            plain[path] = original
        else:
            _fix_indices(original)
    for path, module in list(model.named_modules()):
        if path and path in geometric:
            _show_tensors(module, plain.get(path))
    _enter(model)
    return model


def plain_form(module: Any) -> Any:
    """Return escnn's own torch form of one module, or None where it has none."""
    from torch import nn

    try:
        form = module.export()
    except (NotImplementedError, ValueError):  # each module of escnn that cannot says so in its own way
        return None
    return form.eval() if isinstance(form, nn.Module) else None


def _fix_indices(module: Any) -> None:
    """Turn a module's tables of channel numbers from buffers into lists.

    escnn slices by them (`x[:, indices[0]:indices[1]]`), and a slice whose ends are read from a tensor has no traced
    form; by a list, and as an index, it means the same.
    """
    for name, buffer in list(module._buffers.items()):
        if INDICES.search(name) and buffer is not None and buffer.dim() == 1:
            delattr(module, name)
            setattr(module, name, buffer.tolist())


def _show_tensors(module: Any, stands_for: Any) -> None:
    """Make hooks on the module see a tensor where its caller gets a GeometricTensor.

    `stands_for` is the module of escnn whose torch form it is; None for a module that runs as escnn wrote it.
    """
    from escnn.nn import GeometricTensor

    kind = type(module)
    if stands_for is not None:

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = kind.__call__(self, *(a.tensor if isinstance(a, GeometricTensor) else a for a in args), **kwargs)
            return GeometricTensor(out, stands_for.out_type)

        # a container may ask its parts for these
        kept = ("in_type", "out_type", "evaluate_output_shape")
        members = {"__call__": call} | {name: getattr(stands_for, name) for name in kept}
    else:
        said: list[Any] = []

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = kind.forward(self, *args, **kwargs)
            if isinstance(out, GeometricTensor):
                said.append(out.type)
                return out.tensor
            return out

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            out = kind.__call__(self, *args, **kwargs)  # hooks run in here
            return GeometricTensor(out, said.pop()) if said else out

        members = {"forward": forward, "__call__": call}
    module.__class__ = type(kind.__name__, (kind,), members)


def _enter(model: Any) -> None:
    """Make the whole network take and give plain tensors."""
    from escnn.nn import EquivariantModule, GeometricTensor

    kind = type(model)
    takes = model.in_type if isinstance(model, EquivariantModule) else None

    def forward(self: Any, image: Any) -> Any:
        out = kind.forward(self, image if takes is None else GeometricTensor(image, takes))
        return out.tensor if isinstance(out, GeometricTensor) else out

    if takes is not None:
        model.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def run(net: Any, x: Array) -> tuple[dict[str, Array], dict[str, Any]]:
    """Run a network as escnn runs it and return what went into every module and what it gave.

    Parameters
    ----------
    net : nn.Module
        In eval mode.
    x
        `(B, C, H, W)`.

    Returns
    -------
    {name: array}, {name: FieldType}
        By the names of `geed_exporters.pytorch.hooks`; field types are of what was a GeometricTensor.

    Raises
    ------
    NotExportable
        If the forward pass takes several inputs or fails; the message names the module.
    """
    import torch
    from escnn.nn import EquivariantModule, GeometricTensor

    from geed_exporters.pytorch.hooks import Names, parts

    arrays: dict[str, Array] = {}
    types: dict[str, Any] = {}
    names = Names(net)
    inside: list[str] = []

    def keep(value: Any, label: str) -> None:
        if isinstance(value, GeometricTensor):
            types[label] = value.type
            value = value.tensor
        for name, tensor in parts(value, label):
            # a copy: a later in-place operation writes into the tensor itself
            arrays[names.part(label, name)] = tensor.detach().cpu().numpy().copy()

    def before(path: str) -> Callable[[Any, Any], None]:
        def hook(module: Any, args: Any) -> None:
            inside.append(names.call(path))
            if args and isinstance(args[0], torch.Tensor | GeometricTensor):
                keep(args[0], names.input(inside[-1]))

        return hook

    def after(module: Any, args: Any, out: Any) -> None:
        keep(out, inside.pop())

    hooks = []
    for path, module in net.named_modules():
        if path:
            hooks += [module.register_forward_pre_hook(before(path)), module.register_forward_hook(after)]
    try:
        with torch.no_grad():
            tensor = torch.from_numpy(x)
            own = net(GeometricTensor(tensor, net.in_type) if isinstance(net, EquivariantModule) else tensor)
            keep(own, names.own)
    except Exception as error:  # the network's own code; escnn asserts without a word
        where = f" in {inside[-1]} ({type(net.get_submodule(_path(inside[-1]))).__name__})" if inside else ""
        said = (str(error).strip().splitlines() or [""])[0]
        raise NotExportable(
            f"the forward pass fails{where} on images of shape {x.shape} ({type(error).__name__}"
            f"{': ' if said else ''}{said:.300}); --size and --channels give others"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    return arrays, types


def _path(label: str) -> str:
    return label.split("#")[0]
