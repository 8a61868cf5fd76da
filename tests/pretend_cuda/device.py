"""Tensors that say `cuda:0` and hold their values on the CPU, with CUDA's dispatch, autocast and refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dinov3.eval.segmentation.models.utils import size_constants
from tests.pretend_cuda import guard
from tests.pretend_cuda.host_log import HostLog

aten = torch.ops.aten
CUDA = torch.device("cuda:0")
# Results whose size depends on values, which the host must know to allocate them.
_SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten._unique.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.equal.default,
    aten.histc.default,
    aten.multinomial.default,
}
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_TAKES_CPU_TENSORS = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default, *_INDEXING}
# Names of the operations that take a number as a tensor of the CPU; others would read it from the device.
# fmt: off
_TAKES_CPU_NUMBERS = {
    "add", "sub", "mul", "div", "pow", "rsub", "remainder", "true_divide", "floor_divide", "where", "eq", "ne",
    "lt", "le", "gt", "ge", "fill", "lerp", "maximum", "minimum", "clamp", "clamp_min", "masked_fill",
    "bitwise_and", "logical_and", "logical_or", "copysign", "xlogy", "atan2", "addcmul", "addcdiv", "full",
    "_foreach_add", "_foreach_mul", "_foreach_div",
}
# fmt: on
_HALF = (torch.half, torch.bfloat16)
# Where a CPU has no instructions for half precision, these take minutes.
_SLOW_IN_HALF = {aten.convolution.default, aten.convolution_backward.default}
_LOGS: list[HostLog] = []  # of the open blocks


class CudaTensor(torch.Tensor):
    """Says that it is on `cuda:0`; `on_cpu` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor, requires_grad: bool = False) -> CudaTensor:
        shell = torch.empty_strided(on_cpu.shape, on_cpu.stride(), dtype=on_cpu.dtype, device="meta")
        keys = {"dispatch_device": True, "device_for_backend_keys": CUDA}
        tensor = torch.Tensor._make_subclass(cls, shell, requires_grad, **keys)
        tensor.on_cpu = on_cpu
        return tensor

    def __init__(self, on_cpu: torch.Tensor, requires_grad: bool = False) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return CUDA

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"CudaTensor({self.on_cpu!r})"

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        copied = CudaTensor(self.on_cpu.clone(), self.requires_grad)
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What is decided before the dispatcher: `cuda` without an index, which would ask the driver, and pinning."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if "device" in kwargs:
            kwargs = {**kwargs, "device": _indexed(kwargs["device"])}
        if name == "to":
            args = tuple(map(_indexed, args))
        if name == "cuda":
            return args[0].to(CUDA)
        if name == "tolist" and isinstance(args[0], CudaTensor):
            _each(lambda log: log.wait("tolist"))
            return args[0].on_cpu.tolist()
        if name == "pin_memory":
            pinned = args[0].clone()
            pinned.is_pretended_pinned = True
            return pinned
        if name == "is_pinned":
            return getattr(args[0], "is_pretended_pinned", False)
        return func(*args, **kwargs)


class _Event:
    """Stands for `torch.cuda.Event`: waiting for it is late if the device has more to do by then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._launches: list[int] = []

    def record(self, stream: Any = None) -> None:
        self._launches = [log.all_launches for log in _LOGS]

    def synchronize(self) -> None:
        for log, launches in zip(_LOGS, self._launches, strict=True):
            log.late_reads.append(log.all_launches - launches)
            if log.all_launches == launches:
                log.wait("event")


class _DeviceBlock(contextlib.nullcontext):
    """Stands for `torch.cuda.device`, which is a class that torch asks arguments for."""


def _indexed(device: Any) -> Any:
    if isinstance(device, torch.device):
        return CUDA if device.type == "cuda" and device.index is None else device
    return CUDA if isinstance(device, str) and device == "cuda" else device


def _each(note: Callable[[HostLog], None]) -> None:
    for log in _LOGS:
        note(log)


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation of the dispatcher: refuses what CUDA refuses, notes waits, and computes on the CPU."""
    if func is torch.ops.prim.device.default:
        return CUDA
    if func is aten._fused_sdp_choice.default:
        return 0  # the mathematical attention
    if func is aten._has_compatible_shallow_copy_type.default:
        return all(isinstance(arg, CudaTensor) for arg in args)
    leaves = pytree.tree_leaves((args, kwargs))
    cudas = [leaf for leaf in leaves if isinstance(leaf, CudaTensor)]
    others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, CudaTensor)]
    device = kwargs.get("device")
    to_cuda = torch.device(device).type == "cuda" if device is not None else bool(cudas)
    if cudas and others:
        _refuse_mixed_devices(func, others)
    _note_copies(func, args, kwargs, cudas, others, to_cuda=to_cuda)
    if cudas:
        _note_reads(func, args)
    if cudas or to_cuda:
        _note_launch(func)
    if device is not None and to_cuda:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = _compute(func, *pytree.tree_map_only(CudaTensor, lambda leaf: leaf.on_cpu, (args, kwargs)))
    if not to_cuda:
        return result
    if func._schema.is_mutable and not func.__name__.startswith("_") and func.__name__.split(".")[0].endswith("_"):
        return args[0]
    same = {id(leaf.on_cpu): leaf for leaf in cudas}
    return pytree.tree_map_only(
        torch.Tensor, lambda leaf: same[id(leaf)] if id(leaf) in same else CudaTensor(leaf), result
    )


def _refuse_mixed_devices(func: Any, others: list[torch.Tensor]) -> None:
    if func in _TAKES_CPU_TENSORS:
        return
    if any(other.ndim for other in others):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
    if func.__name__.split(".")[0].removesuffix("_") not in _TAKES_CPU_NUMBERS:
        raise RuntimeError(f"{func} got a tensor of the CPU beside those of cuda:0")


def _note_copies(
    func: Any, args: tuple, kwargs: dict, cudas: list[CudaTensor], others: list[torch.Tensor], *, to_cuda: bool
) -> None:
    if func is aten._to_copy.default and kwargs.get("device") is not None and bool(cudas) != to_cuda:
        source, target_is_cuda, non_blocking = (cudas or others)[0], to_cuda, kwargs.get("non_blocking", False)
    elif func is aten.copy_.default and cudas and others:
        source, target_is_cuda = args[1], isinstance(args[0], CudaTensor)
        # A copy into a given tensor waits unless that is pinned, which no code here does.
        non_blocking = target_is_cuda and (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    else:
        return
    if not target_is_cuda:
        _each(lambda log: log.copy_to_host(source.nbytes))
    if not non_blocking:
        _each(lambda log: log.wait("copy to the device" if target_is_cuda else "copy to the host"))
    elif target_is_cuda and source.ndim and not getattr(source, "is_pretended_pinned", False):
        _each(HostLog.stage)


def _note_reads(func: Any, args: tuple) -> None:
    if func is aten._local_scalar_dense.default:
        _each(lambda log: log.wait("item"))
    elif func in _SIZED_BY_VALUES:
        _each(lambda log: log.wait(func.__name__.split(".")[0]))
    elif func in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            _each(lambda log: log.wait("index of booleans"))
        if any(not isinstance(index, CudaTensor) for index in indices):
            _each(lambda log: log.wait("index on the host"))
    elif func is aten.repeat_interleave.Tensor:
        _each(lambda log: log.wait("repeat_interleave"))


def _note_launch(func: Any) -> None:
    returns = func._schema.returns
    is_view = bool(returns) and all(value.alias_info and not value.alias_info.is_write for value in returns)
    if not is_view:
        _each(HostLog.launch)


def _compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Computes on the CPU, in float32 what its kernels lack or take long for in half precision."""
    if func in (aten._softmax.default, aten._log_softmax.default) and args[2]:  # half in, float32 out
        return func(args[0].float(), args[1], False)
    if func in (aten._softmax_backward_data.default, aten._log_softmax_backward_data.default):
        return func(*args[:3], args[0].dtype).to(args[3])
    try:
        if func not in _SLOW_IN_HALF:
            return func(*args, **kwargs)
    except (RuntimeError, NotImplementedError) as err:
        if "not implemented for" not in str(err):
            raise
    leaves = pytree.tree_leaves((args, kwargs))
    dtype = next((leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dtype in _HALF), None)
    if dtype is None:
        return func(*args, **kwargs)
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda leaf: leaf.float() if leaf.dtype in _HALF else leaf, (args, kwargs)
    )
    return pytree.tree_map_only(
        torch.Tensor, lambda leaf: leaf.to(dtype) if leaf.dtype == torch.float32 else leaf, func(*args, **kwargs)
    )


def _enter_without_gradients(mode: torch.inference_mode) -> None:
    """Stands for entering inference mode, in which torch cannot wrap tensors."""
    mode._inference_mode_context = torch.no_grad() if mode.mode else torch.enable_grad()
    mode._inference_mode_context.__enter__()


def _answers() -> dict[str, Any]:
    """Functions of `torch.cuda` that would ask the driver."""
    properties = SimpleNamespace(
        name="pretended", total_memory=80 * 2**30, major=9, minor=0, multi_processor_count=132, gcnArchName=""
    )

    def always(value: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: value

    memory = ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved")
    nothing = ("_lazy_init", "set_device", "reset_peak_memory_stats", "empty_cache", "manual_seed", "manual_seed_all")
    return {
        # Not one function for several names: torch.compile has a rule for each name, and refuses two for one function.
        **{name: always(0) for name in memory},
        **{name: always(None) for name in nothing},
        "mem_get_info": always((40 * 2**30, properties.total_memory)),
        "is_available": always(True),
        "is_initialized": always(False),
        "device_count": always(1),
        "current_device": always(0),
        "current_stream": always(None),
        "get_device_name": always(properties.name),
        "get_device_properties": always(properties),
        "get_device_capability": always((9, 0)),
        "is_bf16_supported": always(True),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "set_sync_debug_mode": always(None),
        "synchronize": lambda device=None: _each(lambda log: log.wait("synchronize")),
        "device": _DeviceBlock,
        "Event": _Event,
    }


@contextlib.contextmanager
def pretended_cuda() -> Iterator[HostLog]:
    """Within the block, this process has a CUDA device; what it did before stays on the CPU.

    The guard and single-threaded autograd outlast the block, so call it in a process of its own.
    """
    guard.install()
    torch.autograd.set_multithreading_enabled(False)  # its thread for the device would not see the modes below
    log = HostLog()
    with contextlib.ExitStack() as stack:
        for name, answer in _answers().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
        stack.enter_context(mock.patch.object(torch.inference_mode, "__enter__", _enter_without_gradients))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its operations have no version for the CPU
        # As on a GPU, where no dispatch mode is active: constants are remembered.
        stack.enter_context(mock.patch.object(size_constants, "is_in_torch_dispatch_mode", lambda: False))
        future = torch.__future__
        for read, write in (
            (torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors),
            (future.get_overwrite_module_params_on_conversion, future.set_overwrite_module_params_on_conversion),
        ):
            stack.callback(write, read())
            write(True)
        stack.enter_context(_Dispatch())
        stack.enter_context(_Functions())
        _LOGS.append(log)
        stack.callback(_LOGS.remove, log)
        yield log
