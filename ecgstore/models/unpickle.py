"""Unpickling that runs nothing: a checkpoint is a pickle, and a pickle is a program.

Three steps, each tried only when the one before refuses the file: PyTorch's ``weights_only``; the
same with numpy's array names allowed; and an unpickler that knows tensors alone and turns every
other object into an inert stub. None of them can call anything named in the file.
"""

from __future__ import annotations

import _codecs
import collections
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Inert", "unpickle"]


def unpickle(path: Path) -> tuple[str, object]:
    """Load a PyTorch zip archive on the CPU, its tensors as views of the mapped file.

    Returns:
        How it was read, in words, and what the file holds.

    Raises:
        Exception: The file is damaged; what is raised is up to PyTorch.
    """
    options: dict[str, Any] = {"map_location": "cpu", "mmap": True}
    try:
        return "weights only", torch.load(path, weights_only=True, **options)
    except pickle.UnpicklingError:
        pass
    try:
        with torch.serialization.safe_globals(_numpy_names()):
            content = torch.load(path, weights_only=True, **options)
    except pickle.UnpicklingError:
        met: dict[str, None] = {}
        inert = _inert_pickle(met)
        content = torch.load(path, weights_only=False, pickle_module=inert, **options)
        return f"tensors alone; left inert: {_listed(met)}", content
    return "weights only, with numpy arrays", content


def _numpy_names() -> list[Any]:
    """Return what numpy writes into a pickle of an array or scalar, under both its spellings."""
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    names: list[Any] = [np.ndarray, np.dtype, _codecs.encode]
    for package in ("numpy.core", "numpy._core"):
        names.append((reconstruct, f"{package}.multiarray._reconstruct"))
        names.append((scalar, f"{package}.multiarray.scalar"))
    return names + [getattr(np.dtypes, name) for name in np.dtypes.__all__]


class Inert:
    """Stands for an object of a class that is not allowed: takes everything, does nothing."""

    state: object = None

    def __new__(cls, *_args: object, **_options: object) -> Self:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Drop an item of a list."""

    def extend(self, items: object) -> None:
        """Drop items of a list."""

    def add(self, item: object) -> None:
        """Drop an item of a set."""


def _listed(names: Collection[str], show: int = 20) -> str:
    """Name what a file asked for; a name comes from the file, so it is shortened and escaped."""
    shown = [ascii(name[:60])[1:-1] for name in list(names)[:show]]
    return ", ".join([*shown, *(["…"] if len(names) > show else [])]) or "nothing"


def _inert_pickle(met: dict[str, None]) -> SimpleNamespace:
    """Return a stand-in for the pickle module that can build tensors and nothing else.

    A pickle may set attributes on whatever it is handed, functions and classes too, so all it is
    handed is made anew for each file.

    Args:
        met: Takes the names of what the file asks for and does not get.
    """
    rebuild: Any = torch._utils

    def tensor(*args: object) -> object:
        return rebuild._rebuild_tensor_v2(*args)

    def parameter(data: object, *_rest: object) -> object:
        return data

    class Stub(Inert):
        pass

    allowed: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): parameter,
    }

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str, /) -> object:
            if (module, name) not in allowed:  # torch resolves storages before this
                met[f"{module}.{name}"] = None
                return Stub
            return allowed[module, name]

    return SimpleNamespace(__name__="inert", Unpickler=Unpickler)
