"""torch.compile with inductor: the eager backend's network and types, compiled at the first call."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sysconfig
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from vgg_reference.model import VGG
from vggbench.backends import Array, default_threads, resolve_device
from vggbench.backends.pytorch import Forward, TorchSession, offered_by_torch
from vggbench.errors import BackendUnavailable
from vggbench.variants import Variant

_COMPILERS = ("g++", "clang++", "c++")
_numbers = itertools.count()
R = TypeVar("R")


def available() -> str | None:
    """None, or one line: what is missing and how to get it. On a GPU a compiler is needed too, for its launchers."""
    if shutil.which(os.environ.get("CXX", "")) is None and not any(map(shutil.which, _COMPILERS)):
        return "torch.compile needs a C++ compiler. Install one with: apt-get install g++ (or name yours in CXX)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "torch.compile needs Python's headers. Install them with: apt-get install python3-dev"
    return None


def precisions(device: str) -> dict[str, str | None]:
    """Precision -> None, or why not here."""
    return offered_by_torch("torch-compile", device)


def open_session(variant: Variant, device: str, threads: int | None) -> CompiledSession:
    """Raises WeightsError. Nothing is compiled before the first call."""
    return CompiledSession(variant, resolve_device(device, torch.cuda.is_available()), threads or default_threads())


def open_for(variant: Variant, device: str, threads: int | None, batch: int, size: tuple[int, int]) -> CompiledSession:
    """For one batch and size, because a second batch size would get kernels made for any: max-autotune then chooses
    them by whichever size came first. See backends.open_for.
    """
    return open_session(variant, device, threads)


class CompiledSession:
    """A TorchSession whose function is compiled; see vggbench.backends.Session.

    info["compile_seconds"] is 0 until the first call, then the seconds of all calls in which something was compiled
    (their own run included), and info["compilations"] how many graphs: one in crop form, one a block in dense form, and
    as many again for a batch of one, or where a second batch size makes the first dimension dynamic.
    """

    def __init__(self, variant: Variant, device: str, threads: int) -> None:
        mode = "default" if device == "cpu" else "max-autotune"
        compile = functools.partial(_compile, mode=mode, dense=variant.form == "dense")
        own_graph = "" if device == "cpu" else "inductor's own"
        self._session = TorchSession(variant, device, threads, compile, own_graph)
        self.device = device
        self.info: dict[str, Any] = self._session.info
        for name in ("time_calls", "submit"):  # on a GPU
            if hasattr(self._session, name):
                setattr(self, name, functools.partial(self._compiling, getattr(self._session, name)))
        if device != "cpu":
            self.use = self._session.use
        self.info |= {"compiler": "inductor", "mode": mode, "compilations": 0, "compile_seconds": 0.0}

    def __call__(self, images: Array) -> Array:
        return self._compiling(self._session, images)

    def _compiling(self, call: Callable[..., R], *given: Any, **named: Any) -> R:
        """The call, in which something may be compiled."""
        before, start = _compiled(), time.perf_counter()
        try:
            found = call(*given, **named)
        except TorchDynamoException as error:
            why = " ".join(str(error.__cause__ or error).split())[:200]
            raise BackendUnavailable(f"torch.compile failed ({why}). Use --backend pytorch.") from error
        if _compiled() > before:
            self.info["compilations"] += _compiled() - before
            self.info["compile_seconds"] = round(self.info["compile_seconds"] + time.perf_counter() - start, 3)
        return found

    def close(self) -> None:
        """Free the device's memory; a second close does nothing."""
        self._session.close()
        for name in ("time_calls", "submit"):
            self.__dict__.pop(name, None)


def _compile(model: VGG, forward: Forward, *, mode: str, dense: bool) -> Forward:
    """A crop's whole network as one graph; of dense images of any size, what stands between two max-pools.

    Pools that round up and the score map's windows would each be compiled anew for sizes odd and even.
    """
    if mode == "max-autotune" and "TORCHINDUCTOR_AUTOTUNE_NUM_CHOICES_DISPLAYED" not in os.environ:
        from torch._inductor import config

        config.autotune_num_choices_displayed = 0  # a table of candidates a layer would go to the user's terminal
    if not dense:
        return _compile_one(forward, mode)
    pieces = [_compile_one(piece, mode, dynamic=True) for piece in _between_pools(model.features)]
    pools = [layer for layer in model.features if isinstance(layer, nn.MaxPool2d)]

    def features(x: Tensor) -> Tensor:
        for piece, pool in zip(pieces, pools, strict=True):
            x = pool(piece(x))
        return x

    del model.features
    model.features = features  # type: ignore[assignment]
    return forward


def _between_pools(layers: nn.Sequential) -> list[nn.Sequential]:
    """The blocks of Table 1 without their pools."""
    found: list[nn.Sequential] = []
    piece: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            found.append(nn.Sequential(*piece))
            piece = []
        else:
            piece.append(layer)
    return found


def _compile_one(function: Forward, mode: str, dynamic: bool | None = None) -> Forward:
    """The compiled function. Raises where it cannot be one graph, rather than run a part uncompiled."""

    def call(x: Tensor) -> Tensor:
        return function(x)

    # Dynamo allows a function only so many compilations, and counts them by its code: each gets code of its own.
    code = call.__code__.replace(co_name=f"compiled_{next(_numbers)}")
    own = types.FunctionType(code, globals(), code.co_name, None, call.__closure__)
    compiled: Forward = torch.compile(own, fullgraph=True, dynamic=dynamic, mode=mode)
    return compiled


def _compiled() -> int:
    """Graphs compiled in this process so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
