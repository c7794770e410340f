"""Published weights, fetched through huggingface_hub into its own cache and never trusted twice.

Nothing here believes a file because of where it came from. Where its digest is known beforehand it
must have it. Where none is known, the first download is written down, and every later one must be
the same file: trust on first use, as SSH does it with host keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgstore.errors import MissingDependencyError, UsageError, WeightsError
from ecgstore.models.model import models

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecgstore.models.spec import HubFile, ModelSpec

__all__ = ["pull"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pull(
    name: str,
    *,
    revision: str | None = None,
    accept_licence: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch a model's published weights, check them, and return where they are.

    The file stays in the cache of huggingface_hub, whose settings hold (``HF_HOME``,
    ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``); once there it needs no network.

    Args:
        name: Registry name.
        revision: Commit of the repository, 40 hexadecimal digits. By default the one that ecgstore
            knows, else the one of the first pull, else the current one.
        accept_licence: Accept a licence that forbids commercial use or asks for more than
            attribution.
        tell: Called with each sentence for the user: the licence, what was fetched, and why it is
            trusted.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        UnknownNameError: There is no such model.
        UsageError: The revision is no commit, or the licence was not accepted.
        WeightsError: There is nothing to fetch, it could not be had, it is not the file it was or
            has to be, or it does not fit the model.
    """
    spec = models.get(name.partition(":")[0]).spec
    file = spec.hub
    if file is None:
        where = spec.weights_source or "it is built in and needs none"
        msg = f"The weights of {spec.name!r} cannot be pulled: {where}."
        raise WeightsError(msg, model=spec.name)
    if revision is not None and not _COMMIT.fullmatch(revision):
        msg = f"{revision!r} is no commit, expected 40 hexadecimal digits."
        raise UsageError(msg, hint="Branches and tags can move; the Hub shows the commit of each.")
    _agree(spec, tell, accepted=accept_licence)
    record = _record_of(file)
    known = _read(record, spec)
    path = _download(spec, file, revision or file.revision or known.get("revision") or "main")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    commit = path.parents[file.filename.count("/")].name
    tell(f"{file.repo} {file.filename}: revision {commit}, sha256 {sha256}")
    expected = file.sha256 or known.get("sha256")
    if expected not in (None, sha256):
        msg = f"{path.name!r} for {spec.name!r} has the sha256 {sha256}, expected {expected}."
        hint = f"To fetch it anew, remove {path.resolve()}"
        if not file.sha256:
            hint += f"; if the file may differ from that of the first pull, remove {record}"
        raise WeightsError(msg, model=spec.name, path=path, hint=f"{hint}.")
    _check(spec, path)
    if expected:
        tell(f"it has the digest that {'ecgstore' if file.sha256 else record} knows")
        return path
    try:
        _write(record, {"file": file.filename, "revision": commit, "sha256": sha256})
    except FileExistsError:  # another pull was first, so this one is held to it
        return pull(name, revision=revision, accept_licence=accept_licence, tell=tell)
    tell(f"first pull: its digest is written to {record}, and every later pull must match it")
    return path


def _agree(spec: ModelSpec, tell: Callable[[str], None], *, accepted: bool) -> None:
    """Show the licence, and refuse one that asks for something unless it was accepted."""
    text = f"Licence of the weights of {spec.name!r}: {spec.licence}."
    if spec.licence_note:
        text = f"{text} {spec.licence_note}"
    elif not spec.commercial:
        text = f"{text} Not for commercial use."
    if accepted or (spec.commercial and not spec.licence_note):
        tell(text)
        return
    hint = "If you accept it: accept_licence=True, or --accept-licence."
    raise UsageError(text, hint=hint)


def _download(spec: ModelSpec, file: HubFile, revision: str) -> Path:
    """Return the file in the cache, fetched if it is not there."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        purpose = "Pulling weights"
        raise MissingDependencyError(
            purpose=purpose, package="huggingface_hub", extra="hub"
        ) from error
    try:
        return Path(hf_hub_download(file.repo, file.filename, revision=revision))
    except Exception as error:  # its own ones, those of its HTTP client, and OSError
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        msg = f"{file.filename!r} could not be had from {file.repo} at {revision[:12]}: {reason}."
        hint = "Pull again to go on; or get it by other means and give its path: --weights PATH."
        raise WeightsError(msg, model=spec.name, hint=hint) from error


def _check(spec: ModelSpec, path: Path) -> None:
    from ecgstore.models import check_weights  # which imports this module

    last = check_weights(spec.name, path)[-1]
    if last["result"] != "ok":
        raise WeightsError(str(last["detail"]), model=spec.name, path=path)


def _record_of(file: HubFile) -> Path:
    """Return where the digest of a first pull is kept, beside the user's other settings.

    It is not in the cache, which may be emptied at any time, or be read-only and shared.
    """
    home = os.environ.get("XDG_CONFIG_HOME")
    folder = (Path(home) if home else Path.home() / ".config") / "ecgstore" / "weights"
    return folder / f"{file.repo}/{file.filename}.json".replace("/", "--")


def _read(record: Path, spec: ModelSpec) -> dict[str, str]:
    try:
        known: Any = json.loads(record.read_text())
        return {key: str(known[key]) for key in ("revision", "sha256")}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        msg = f"The record of the first pull, {str(record)!r}, is damaged."
        hint = "Remove it to trust the next download anew."
        raise WeightsError(msg, model=spec.name, path=record, hint=hint) from error


def _write(record: Path, entry: dict[str, str]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("x") as stream:  # never over another one
        stream.write(json.dumps(entry, indent=2) + "\n")
