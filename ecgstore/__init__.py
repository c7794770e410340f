"""An embedded feature store for electrocardiograms.

``connect`` opens a warehouse; ``load_encoder`` and ``read`` work without one. Names are loaded
when first used, so that ``import ecgstore`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecgstore import errors
    from ecgstore.catalog import queries
    from ecgstore.demo import demo
    from ecgstore.environment import environment
    from ecgstore.io import read
    from ecgstore.models import (
        check_weights,
        convert_weights,
        diff_contracts,
        get_spec,
        list_contracts,
        list_models,
        load_encoder,
        pull_weights,
        show_contract,
    )
    from ecgstore.record import Record
    from ecgstore.settings import code_version, version
    from ecgstore.store import Store, connect
    from ecgstore.teaching import list_methods

__all__ = [
    "Record",
    "Store",
    "check_weights",
    "code_version",
    "connect",
    "convert_weights",
    "demo",
    "diff_contracts",
    "environment",
    "errors",
    "get_spec",
    "list_contracts",
    "list_methods",
    "list_models",
    "load_encoder",
    "pull_weights",
    "queries",
    "read",
    "show_contract",
    "version",
]

_HOME = {
    "Record": "record",
    "Store": "store",
    "check_weights": "models",
    "code_version": "settings",
    "connect": "store",
    "convert_weights": "models",
    "demo": "demo",
    "diff_contracts": "models",
    "environment": "environment",
    "get_spec": "models",
    "list_contracts": "models",
    "list_methods": "teaching",
    "list_models": "models",
    "load_encoder": "models",
    "pull_weights": "models",
    "queries": "catalog",
    "read": "io",
    "show_contract": "models",
    "version": "settings",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("ecgstore.errors")
    if name not in _HOME:
        msg = f"module 'ecgstore' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"ecgstore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
