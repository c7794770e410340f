"""Published weights: fetched once, checked, never replaced in silence, from a server of our own."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import (
    constants,
    file_download,  # noqa: F401  it takes the stderr of now, not that of a command
)

from ecgstore.errors import MissingDependencyError, UsageError, WeightsError
from ecgstore.models import get_spec, models
from ecgstore.models.hub import pull
from ecgstore.models.spec import HubFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO, FILE = "wanglab/ecg-fm", "mimic_iv_ecg_physionet_pretrained.pt"
FIRST, SECOND, THIRD = "1" * 40, "2" * 40, "3" * 40


@dataclass
class Hub:
    """A server that speaks as much of the Hub's protocol as a download needs.

    Attributes:
        commits: The file at each commit.
        main: The commit that the branch is at.
        cut: How many answers are cut off in the middle from now on.
        asked: Method, path and range of each request.
    """

    commits: dict[str, bytes] = field(default_factory=dict)
    main: str = FIRST
    cut: int = 0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.command, request.path, wanted))
        before, _, rest = request.path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit = self.main if revision == "main" else revision
        if (before, name) != (f"/{REPO}", FILE) or commit not in self.commits:
            request.send_response(404)
            request.send_header("X-Error-Code", "RevisionNotFound")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        content = self.commits[commit]
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        request.send_response(206 if start else 200)
        if start:
            ends = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", ends)
        request.send_header("X-Repo-Commit", commit)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        if not body:
            return
        content = content[start:]
        if self.cut:
            self.cut -= 1
            content = content[: len(content) // 2]
            request.close_connection = True
        request.wfile.write(content)


@pytest.fixture
def server(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a Hub that has ECG-FM at small size, and an empty cache."""
    site = Hub({FIRST: (test_data / "goldens" / "ecgfm_tiny" / "pretrained.pt").read_bytes()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            site.answer(self, body=False)

        def do_GET(self) -> None:
            site.answer(self, body=True)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    # What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE set is read once, when it is imported.
    address = f"http://127.0.0.1:{listener.server_port}"
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield site
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a call that changes what the spec of ECG-FM says of its weights."""

    def call(**changes: Any) -> None:
        model = models.get("ecgfm")
        changed = replace(model, spec=replace(model.spec, **changes))
        monkeypatch.setitem(models._entries, "ecgfm", changed)

    call(hub=HubFile(REPO, FILE))
    return call


def test_the_first_pull_is_checked_and_written_down_and_the_second_needs_no_network(
    server: Hub,
    offer: Callable[..., None],
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    done = run("models", "pull", "ecgfm")
    assert done.code == 0
    path = done.out.removesuffix("\n")
    sha256 = hashlib.sha256(server.commits[FIRST]).hexdigest()
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256
    licence, fetched, trusted = done.err.splitlines()
    assert "MIT" in licence
    assert FIRST in fetched
    assert sha256 in fetched
    assert "first pull" in trusted
    (record,) = (tmp_path / "config" / "ecgstore" / "weights").iterdir()
    assert str(record) in trusted
    assert json.loads(record.read_text()) == {"file": FILE, "revision": FIRST, "sha256": sha256}
    assert run("models", "check", "ecgfm", "--weights", path).code == 0
    asked = len(server.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = run("models", "pull", "ecgfm")
    assert (again.code, again.out) == (0, done.out)
    assert "first pull" not in again.err
    assert len(server.asked) == asked


def test_a_download_that_was_cut_goes_on_where_it_stopped(
    server: Hub, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before it tries again
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what it writes at once
    server.cut = 2
    assert pull("ecgfm").read_bytes() == server.commits[FIRST]
    half = len(server.commits[FIRST]) // 2
    starts = [int(r.removeprefix("bytes=")[:-1]) for _, _, r in server.asked if r]
    assert starts[0] == half // 1000 * 1000
    assert starts[0] < starts[1]


def test_a_branch_that_moved_is_not_followed(server: Hub, offer: Callable[..., None]) -> None:
    path = pull("ecgfm")
    server.commits[SECOND] = server.commits[FIRST] + b"more"
    server.main = SECOND
    assert pull("ecgfm") == path
    with pytest.raises(WeightsError, match="expected") as caught:
        pull("ecgfm", revision=SECOND)
    assert "remove" in (caught.value.hint or "")
    assert "first pull" in (caught.value.hint or "")
    server.commits[THIRD] = server.commits[FIRST]
    assert pull("ecgfm", revision=THIRD).read_bytes() == path.read_bytes()


def test_the_same_commit_with_other_bytes_is_refused(
    server: Hub, offer: Callable[..., None], tmp_path: Path
) -> None:
    pull("ecgfm").resolve().unlink()
    other = bytearray(server.commits[FIRST])
    other[len(other) // 2] ^= 1
    server.commits[FIRST] = bytes(other)
    with pytest.raises(WeightsError, match=hashlib.sha256(other).hexdigest()):
        pull("ecgfm")


def test_a_known_digest_is_held_from_the_first_pull_on(
    server: Hub, offer: Callable[..., None], tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(server.commits[FIRST]).hexdigest()
    offer(hub=HubFile(REPO, FILE, revision=FIRST, sha256=sha256))
    server.main = THIRD
    said: list[str] = []
    assert pull("ecgfm", tell=said.append).is_file()
    assert "ecgstore knows" in said[-1]
    assert not (tmp_path / "config").exists()
    offer(hub=HubFile(REPO, FILE, revision=FIRST, sha256="0" * 64))
    with pytest.raises(WeightsError, match="expected 000"):
        pull("ecgfm")


def test_what_is_no_such_model_is_not_trusted(
    server: Hub, offer: Callable[..., None], test_data: Path, tmp_path: Path
) -> None:
    other = test_data / "goldens" / "stmem_tiny" / "st_mem_tiny_encoder.pth"
    server.commits[FIRST] = other.read_bytes()
    with pytest.raises(WeightsError, match="ST-MEM"):
        pull("ecgfm")
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    "terms",
    [
        {"licence": "CC-BY-NC-4.0", "commercial": False},
        {"licence_note": "Show this to your lawyer."},
    ],
    ids=["non-commercial", "with a note"],
)
def test_a_licence_that_asks_for_more_must_be_accepted(
    server: Hub, offer: Callable[..., None], run: Callable[..., Any], terms: dict[str, Any]
) -> None:
    offer(**terms)
    refused = run("models", "pull", "ecgfm")
    assert (refused.code, refused.out) == (2, "")
    assert "--accept-licence" in refused.err
    assert str(terms.get("licence_note", terms.get("licence"))) in refused.err
    assert not server.asked
    said: list[str] = []
    assert pull("ecgfm", accept_licence=True, tell=said.append).is_file()
    assert str(terms.get("licence_note", terms.get("licence"))) in said[0]


def test_what_cannot_be_pulled_says_so_in_a_line(
    server: Hub, offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError) as caught:
        pull("stmem")
    assert str(get_spec("stmem").weights_source) in caught.value.message
    with pytest.raises(WeightsError, match="built in"):
        pull("stmem.tiny")
    with pytest.raises(UsageError, match="'main' is no commit"):
        pull("ecgfm", revision="main")
    with pytest.raises(WeightsError, match="could not be had") as caught:
        pull("ecgfm", revision=SECOND)
    assert "\n" not in caught.value.message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="could not be had") as caught:
        pull("ecgfm")
    assert "--weights PATH" in str(caught.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"ecgstore\[hub\]"):
        pull("ecgfm")


def test_a_damaged_record_of_the_first_pull_is_not_taken_for_none(
    server: Hub, offer: Callable[..., None], tmp_path: Path
) -> None:
    pull("ecgfm")
    (record,) = (tmp_path / "config" / "ecgstore" / "weights").iterdir()
    record.write_text("{}")
    with pytest.raises(WeightsError, match="damaged"):
        pull("ecgfm")
