"""``python -m ecgstore``: the command line, installed or from a bare checkout."""

from __future__ import annotations

import importlib
import importlib.util

if __name__ == "__main__":  # worker processes import this file under another name
    installed = importlib.util.find_spec("ecgstore.cli") is not None
    importlib.import_module("ecgstore.cli.app" if installed else "cli.app").app()
