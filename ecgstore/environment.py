"""What ecgstore runs on: versions of the libraries it found, processor, GPU, precision."""

from __future__ import annotations

import platform
from importlib import metadata

from ecgstore import settings
from ecgstore.deidentify import key_file

__all__ = ["environment"]

_PACKAGES = (
    "duckdb",
    "h5py",
    "matplotlib",
    "numpy",
    "polars",
    "pyarrow",
    "pydicom",
    "scikit-learn",
    "scipy",
    "torch",
    "typer",
    "wfdb",
    "xgboost",
    "xgboost-cpu",
)


def environment() -> list[dict[str, str]]:
    """List what was found, one row each: ``part``, ``found``."""
    import torch

    rows = [
        ("ecgstore", settings.code_version()),
        ("python", platform.python_version()),
        ("platform", f"{platform.system()} {platform.machine()}"),
        ("cores", str(settings.threads())),
        ("warehouse", str(settings.warehouse_home())),
        ("key of patients' ids", f"{key_file()}{'' if key_file().exists() else ' (not made yet)'}"),
    ]
    for package in _PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    rows.append(("torch build", f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"))
    rows.append(("gpu", torch.cuda.get_device_name() if cuda else "none"))
    return [{"part": part, "found": found} for part, found in rows]
