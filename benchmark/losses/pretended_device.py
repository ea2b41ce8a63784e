"""A pretended CUDA device: real arithmetic on the CPU, on tensors that claim to be on `cuda:0`.

    with PretendedDevice() as device:
        module.to("cuda")
        module(torch.rand(3, 4, device="cuda")).sum().backward()
    device.events["wait"]  # Counter({"losses/snr.py:70 nonzero": 2})

A tensor on the device is a `Claimed`, which holds a tensor of the CPU. Every operation of ATen that touches one, in the
backward pass too, goes through `PretendedDevice.run`, which notes three kinds of events, each with the line of the
project that caused it:

- mismatch: tensors of both devices, or a generator of the other one, in an operation that CUDA would refuse;
- wait: the host waits for the device, because it reads a value, because the size of a result depends on values, or
  because it copies pageable memory;
- order: CUDA adds with atomics, so that a sum depends on the order of the threads. Noted only where two summands meet.

The rules are those of PyTorch's documentation of `torch.use_deterministic_algorithms`, of `non_blocking` copies and of
advanced indexing, and of its CUDA kernels where the documentation is silent. Not seen: kernels that CUDA lacks, its
rounding, synchronisation inside a library, and the versions of an optimiser that treat all parameters at once.

For C++, a `Claimed` is on the meta device: autograd needs a driver for tensors on CUDA, and none for those. Python sees
the claimed device.
"""

import contextlib
import functools
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = str(Path(__file__).parents[1])
CPU, CUDA, META = torch.device("cpu"), torch.device("cuda", 0), torch.device("meta")
aten = torch.ops.aten
SMALL = 64 * 1024  # bytes of pageable memory that the driver copies into its own buffer before a copy returns

VALUES_ARE_READ = {  # or the size of the result depends on them
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "equal", "bincount", "is_nonzero", "linalg_eig", "segment_reduce",
}  # fmt: skip
# The sum at a place of the result has several summands: (dimension, index) of these operations.
ADDS_AT_INDEX = {"index_add": (1, 2), "scatter_add": (1, 2), "scatter_reduce": (1, 2)}
ALWAYS_ATOMIC = {
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward", "grid_sampler_2d_backward", "reflection_pad2d_backward", "histc", "kthvalue",
    "median", "nanmedian", "_embedding_bag_dense_backward", "put",
}  # fmt: skip
ATOMIC_IF_FLOATING = {"cumsum", "cumprod", "logcumsumexp"}
BOTH_DEVICES = {"_to_copy", "_has_compatible_shallow_copy_type"}


class Claimed(Tensor):
    """A tensor that claims to be on `cuda:0` and holds its values on the CPU, in `inner`."""

    inner: Tensor  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Claimed":
        """Claim a tensor of any shape."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=META,
            layout=inner.layout, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner.detach() if inner.requires_grad else inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The claimed device."""
        return CUDA

    is_cuda = property(lambda _: True)
    is_cpu = is_meta = property(lambda _: False)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Claimed({self.inner})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} of a tensor on the pretended device, outside of its block")


class Operations(TorchDispatchMode):
    """Passes every operation to the device, also those without a tensor, by which autograd creates zeros."""

    def __init__(self, device: "PretendedDevice") -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.device.run(func, args, kwargs or {})


class ClaimedGenerator(torch.Generator):
    """A generator of the CPU that claims the given device."""

    claimed: torch.device

    def __new__(cls, device: Any = "cpu") -> "ClaimedGenerator":
        """Claim a device."""
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        made.claimed = CUDA if torch.device(device).type == "cuda" else CPU
        return made

    def __init__(self, device: Any = "cpu") -> None: ...

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The claimed device."""
        return self.claimed


def claim(value: Any) -> Any:
    """Put the tensors, of any shape, in a value on the pretended device."""
    if isinstance(value, Tensor):
        return value if isinstance(value, Claimed) else Claimed(value)
    return _each(claim, value)


def values(value: Any) -> Any:
    """The values of tensors on the pretended device, without noting an event."""
    return value.inner if isinstance(value, Claimed) else _each(values, value)


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(part) for key, part in value.items()}
    return type(value)(map(change, value)) if type(value) in (list, tuple) else value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors, of any shape, in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


@functools.cache
def described(func: Any) -> tuple[str, bool, list[tuple[int, str]]]:
    """An operation's name, whether it returns what it writes, and the places and names of arguments that it writes."""
    schema = func._schema
    written = [(i, a.name) for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write]
    returns = bool(schema.returns and schema.returns[0].alias_info and schema.returns[0].alias_info.is_write)
    return schema.name.removeprefix("aten::"), returns, written


class PretendedDevice(TorchFunctionMode):
    """Inside the block, `cuda` is pretended, and `events` fills.

    Args:
        folders: beginnings of the paths of other packages, whose lines are named like those of the project.

    Attributes:
        events: by kind ("mismatch", "wait", "order"), how often each happened, by place and operation.
    """

    def __init__(self, folders: Iterable[str] = ()) -> None:
        super().__init__()
        self.folders = tuple(folders)
        self.events: dict[str, Counter[str]] = defaultdict(Counter)
        self.nodes: dict[int, str] = {}  # by sequence number of a node of the graph: the line of its forward pass
        self.pinned: set[int] = set()
        self.stack = contextlib.ExitStack()

    def clear(self) -> None:
        """Forget the events so far."""
        self.events.clear()

    def note(self, kind: str, what: str) -> None:
        """Count an event at the line that runs.

        Args:
            kind: a key of `events`.
            what: the operation.
        """
        self.events[kind][f"{self.place()} {what}"] += 1

    def place(self) -> str:
        """The line of the project that runs, or whose backward pass runs, such as `losses/snr.py:70`."""
        node = torch._C._current_autograd_node()
        if node is not None and (known := self.nodes.get(node._sequence_nr())):
            return f"{known} (backward)"
        return line(self.folders) or "?"

    # -- operations of ATen ------------------------------------------------------------------------------------------

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on the values, and claim its results."""
        tensors = tensors_in((args, kwargs))
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if target != "meta" and not any(isinstance(t, Claimed) for t in tensors):
            return func(*args, **kwargs)
        name, returns_written, written = described(func)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            self.nodes[torch._C._autograd._get_sequence_nr() - 1] = line(self.folders)
        self.check(name, args, kwargs, tensors)
        if target is not None:
            kwargs = kwargs | {"device": CPU, "pin_memory": False}
        if name == "_to_copy" and target == "cpu":
            self.note("wait", "copy to the host")
        found = func(*values(args), **values(kwargs))
        if name == "_local_scalar_dense" or target == "cpu":
            return found
        if returns_written:
            out = tuple(kwargs[key] if key in kwargs else args[place] for place, key in written)
            return out if isinstance(found, tuple | list) and len(out) > 1 else out[0]
        return claim(found)

    def check(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        """Note what an operation on tensors of any shape would do on CUDA."""
        claimed = [t for t in tensors if isinstance(t, Claimed)]
        if not claimed:
            return
        if name in VALUES_ARE_READ:
            self.note("wait", {"_local_scalar_dense": "item"}.get(name, name))
        foreign = [t for t in tensors if not isinstance(t, Claimed) and t.dim() > 0]
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.check_index(name, args, kwargs)
        elif name == "copy_":
            self.check_copy(args[0], args[1], *args[2:], **kwargs)
        elif name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.note("wait", "repeat_interleave by a tensor")
        elif foreign and name not in BOTH_DEVICES:
            self.note("mismatch", f"{name} of tensors on {', '.join(sorted({str(t.device) for t in tensors}))}")
        self.check_order(name.removesuffix("_"), args)

    def check_index(self, name: str, args: Any, kwargs: Any) -> None:
        """Note what indexing would do on CUDA."""
        target, indices = args[0], [i for i in args[1] if i is not None]
        if not isinstance(target, Claimed) or (len(args) > 2 and not isinstance(args[2], Claimed) and args[2].dim()):
            self.note("mismatch", f"{name} of tensors on both devices")
        for index in indices:
            if not isinstance(index, Claimed):
                self.note("wait", f"{name} by values of the host")
            if index.dtype in (torch.bool, torch.uint8) and not (name != "index" and args[2].numel() == 1):
                self.note("wait", f"{name} by a mask")

    def check_copy(self, to: Tensor, source: Tensor, non_blocking: bool = False) -> None:
        """Note whether a copy between tensors of any shape would wait on CUDA."""
        if isinstance(source, Claimed) and not isinstance(to, Claimed):
            self.note("wait", "copy_ to the host")
        elif isinstance(to, Claimed) and not isinstance(source, Claimed) and not self.starts(source, non_blocking):
            self.note("wait", "copy_ to the device")

    def starts(self, source: Tensor, non_blocking: bool) -> bool:
        """Whether a copy from the host, of any shape, returns before the device has finished it."""
        return non_blocking and (source.untyped_storage().data_ptr() in self.pinned or source.nbytes <= SMALL)

    def check_order(self, name: str, args: Any) -> None:
        """Note a sum whose order CUDA does not fix."""
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name in ALWAYS_ATOMIC or (name in ATOMIC_IF_FLOATING and first is not None and first.is_floating_point()):
            self.note("order", name)
        elif name in ADDS_AT_INDEX and first is not None and first.is_floating_point():
            dim, index = (values(args[place]) for place in ADDS_AT_INDEX[name])
            counts = torch.zeros(first.shape if name != "index_add" else (first.shape[dim],), dtype=torch.long)
            counts.scatter_add_(dim if name != "index_add" else 0, index, torch.ones_like(index))
            if (counts > 1).any():
                self.note("order", name)
        elif name == "max_pool2d_with_indices_backward":
            kernel, stride = args[2], args[3] or args[2]
            if any(k > s for k, s in zip(kernel, stride, strict=True)):  # windows overlap
                self.note("order", name)

    # -- calls from Python -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        if name in ("to", "cuda", "cpu") and isinstance(first, Tensor):
            return self.moved(func, name, first, args[1:], kwargs)
        if name in ("numpy", "__array__") and isinstance(first, Claimed):
            self.note("mismatch", "numpy() of a tensor on the device")
            return first.inner.numpy()
        if name == "tolist" and isinstance(first, Claimed):
            self.note("wait", "tolist")
            return first.inner.tolist()
        if name == "pin_memory" and isinstance(first, Tensor):
            return self.pin(first.clone())
        if name == "new_tensor" and isinstance(first, Claimed):
            self.note("wait", "new_tensor of values of the host")
            return claim(torch.tensor(args[1], dtype=kwargs.get("dtype") or first.dtype))
        generator = kwargs.get("generator")
        device = kwargs.get("device")
        on_device = device is not None and torch.device(device).type == "cuda"
        if device is None:
            on_device = any(isinstance(t, Claimed) for t in tensors_in((args, kwargs)))
        if isinstance(generator, ClaimedGenerator) and (generator.claimed == CUDA) != on_device:
            self.note("mismatch", f"{name} with a generator on {generator.device}")
        pinned = kwargs.pop("pin_memory", False)
        if device is None or not on_device:
            made = func(*args, **kwargs)
            return self.pin(made) if pinned else made
        if isinstance(first, Claimed) and name != "tensor":  # such as zeros_like
            return func(*args, **{key: value for key, value in kwargs.items() if key != "device"})
        if name in ("tensor", "as_tensor", "asarray"):
            self.note("wait", f"{name} of values of the host")
        needs_gradient = kwargs.pop("requires_grad", False)
        return claim(func(*values(args), **kwargs | {"device": CPU})).requires_grad_(needs_gradient)

    def pin(self, tensor: Tensor) -> Tensor:
        """The same tensor, of any shape, as pinned memory."""
        self.pinned.add(tensor.untyped_storage().data_ptr())
        return tensor

    def moved(self, func: Any, name: str, tensor: Tensor, rest: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of `to`, `cuda` or `cpu` of a tensor of any shape."""
        device = {"cuda": CUDA, "cpu": CPU}.get(name) or kwargs.pop("device", None)
        non_blocking = kwargs.pop("non_blocking", False)
        other: list[Any] = []
        for value in rest:
            if isinstance(value, torch.device | str):
                device = torch.device(value)
            elif isinstance(value, Tensor):
                device, other = value.device, [*other, value.dtype]
            elif isinstance(value, bool):
                non_blocking = value
            elif value is not None:
                other.append(value)
        device = tensor.device if device is None else torch.device(device)
        device = CUDA if device == META else device  # what C++ reports as the device of a claimed tensor
        if device.type == tensor.device.type:
            return tensor.to(*other, **kwargs) if other or kwargs else tensor
        if device.type == "cuda":
            if not self.starts(tensor, non_blocking):
                self.note("wait", "copy to the device")
            return _ToDevice.apply(tensor.to(*other, **kwargs))
        self.note("wait", "copy to the host")
        return _ToHost.apply(tensor.to(*other, **kwargs))

    # -- what is no operation on tensors -----------------------------------------------------------------------------

    def __enter__(self) -> "PretendedDevice":
        stack = self.stack = contextlib.ExitStack()
        stack.enter_context(Operations(self))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*CUDA is not available.*")
        for owner, name, value in (
            (torch, "Generator", ClaimedGenerator),
            (torch, "load", functools.partial(_load, torch.load)),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.stack.close()


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return Claimed(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return values(gradient)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return cast(Tensor, values(tensor).detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return claim(gradient)


def _load(load: Callable[..., Any], file: Any, map_location: Any = None, **options: Any) -> Any:
    state = load(file, map_location="cpu", **options)
    return claim(state) if map_location is not None and torch.device(map_location).type == "cuda" else state


def line(more: tuple[str, ...] = ()) -> str:
    """The innermost line of the project on the stack, or else of any code but PyTorch's: `losses/snr.py:70`.

    Args:
        more: beginnings of the paths of other packages, whose lines count as those of the project.
    """
    frame, other = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        place = f"{os.sep.join(Path(name).parts[-2:])}:{frame.f_lineno}"
        if name != __file__ and name.startswith(ROOT):
            return f"{name[len(ROOT) + 1 :]}:{frame.f_lineno}"
        if name.startswith(more):
            return place
        if not other and name != __file__ and f"{os.sep}torch{os.sep}" not in name:
            other = place
        frame = frame.f_back  # type: ignore[assignment]
    return other
