"""Coverage-guided fuzzing of the decoders that are written here, with atheris.

    python fuzz/decoders.py                           the names of the decoders
    python fuzz/decoders.py NAME -runs=100000         any option of libFuzzer
    python fuzz/decoders.py NAME CRASH_FILE           one input again

Whatever the input, a reader may give a record or raise `ReadError`, and a decoder its own error;
anything else ends the run, and the input is kept. Inputs begin from the real files of the folder
that ECGSTORE_TEST_DATA names. Checksums are not looked at, which would stop nearly every input.

atheris is no dependency of the project: install it where this is to run. New inputs are kept only
for the run, unless a folder for them is given as libFuzzer takes it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

# Not the vocabulary: to look into comparisons of sets of a thousand words takes 0.2 s an input.
with atheris.instrument_imports(
    include=["ecgstore.io", "ecgstore.record"], exclude=["ecgstore.io.vocabulary"]
):
    from ecgstore.errors import ReadError
    from ecgstore.io import ishne, open_container, read, scp_sections
    from ecgstore.io.edf_annotations import annotations_of, parse_lists
    from ecgstore.io.edf_header import EdfError
    from ecgstore.io.edf_header import parse_header as edf_header
    from ecgstore.io.wfdb_annotations import AnnotationError, decode
    from ecgstore.io.wfdb_header import HeaderError, looks_like_header, parse_header
    from ecgstore.io.wfdb_samples import BYTES_PER_SAMPLE, unpack
    from ecgstore.io.xli import XliError, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONG_TEXT = re.compile(rb">([^<]{300})[^<]*<")
_LONGEST = 300_000  # bytes of an input


def header(data: bytes) -> None:
    """Parse a WFDB header."""
    looks_like_header(data)
    try:
        parse_header(data)
    except HeaderError:
        return


def annotations(data: bytes) -> None:
    """Decode WFDB annotations; each is as long as all others say."""
    try:
        found, _ = decode(data, annotator="atr", rate_hz=360)
    except AnnotationError:
        return
    n = len(found)
    assert n == len(found.time_s) == len(found.subtype) == len(found.text), "lengths differ"


def samples(data: bytes) -> None:
    """Unpack WFDB samples of any format: as many as were asked for."""
    if len(data) < 4:
        return
    forms = sorted(BYTES_PER_SAMPLE)
    form, offset = forms[data[0] % len(forms)], data[1] % 8
    per_frame = [1 + data[2] % 3] * (1 + data[3] % 12)
    body = data[4:]
    n_frames = int(max(0, len(body) - offset) / (BYTES_PER_SAMPLE[form] * sum(per_frame)))
    if n_frames:
        found = unpack(
            body,
            form,
            offset=offset,
            n_frames=n_frames,
            per_frame=per_frame,
            initial=[0] * len(per_frame),
        )
        assert [len(one) for one in found] == [n_frames * one for one in per_frame], "lengths"


def xli(data: bytes) -> None:
    """Decompress a block of Philips samples."""
    try:
        decompress(data)
    except XliError:
        return


def edf_lists(data: bytes) -> None:
    """Parse an EDF header, and the input as lists of annotations."""
    with contextlib.suppress(EdfError):
        edf_header(data)
    try:
        annotations_of(parse_lists([[data[at : at + 60]] for at in range(0, len(data), 60)]), ())
    except EdfError:
        return


def file_of(reader: str, path: Path, data: bytes) -> None:
    """Read an input as a file of a format, or the first records of one that holds many."""
    path.write_bytes(data)
    try:
        container = open_container(path, reader=reader)
        if container is None:
            read(path, reader=reader)
            return
        for _ in container.read(range(min(3, len(container.names)))):
            pass
    except ReadError:
        return


DECODERS: dict[str, tuple[Callable[[bytes], None] | str, tuple[str, ...]]] = {
    "wfdb-header": (header, ("data/formats/wfdb/*.hea", "data/longterm/mitdb/*.hea")),
    "wfdb-annotations": (annotations, ("data/formats/wfdb/*.qrs", "data/longterm/*/*.atr")),
    "wfdb-samples": (samples, ("data/formats/wfdb/310derive.dat",)),
    "xli": (xli, ("data/formats/philips_xml/1_*",)),
    "edf-annotations": (edf_lists, ("data/formats/edf_bdf/*edfann.edf",)),
    "edf": ("edf", ("data/formats/edf_bdf/c*.edf",)),
    "scp": ("scp", ("data/formats/scp/*.scp",)),
    "muse": ("muse", ("data/formats/muse_xml/muse_ecg1.xml",)),
    "philips": ("philips", ("data/formats/philips_xml/1_03*",)),
    "hl7": ("hl7", ("data/formats/hl7_aecg/*.xml",)),
    "schiller": ("schiller", ("data/formats/schiller_xml/*.xml",)),
    "ishne": ("ishne", ("data/formats/ishne/*12lead.ecg",)),
    "matlab": ("matlab", ("data/cpsc2018_original/A1980.mat", "data/code15/mat/*.mat")),
    "csv": ("csv", ("data/formats/csv/*.csv",)),
    "numpy": ("numpy", ()),
}
"""What takes an input, or the reader that does, and the real files to begin from."""


def seeds(name: str, patterns: tuple[str, ...]) -> Iterator[bytes]:
    """Yield what to begin from: real files, and those of long texts with the texts cut."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    data = Path(os.environ.get("ECGSTORE_TEST_DATA", beside))
    for path in sorted(path for pattern in patterns for path in data.glob(pattern))[:8]:
        content = path.read_bytes()
        if name == "xli":
            yield from _blocks(content)
            continue
        if name == "csv":
            yield b"\n".join(content.split(b"\n")[:40])
        if content.lstrip(b"\xef\xbb\xbf").startswith(b"<"):
            yield _LONG_TEXT.sub(rb">\1<", content)
        yield content[: _LONGEST if isinstance(DECODERS[name][0], str) else 8192]
    if name == "numpy":
        shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (12, 100), }"
        padded = shape.ljust(117) + b"\n"
        yield b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(4800)


def _blocks(content: bytes) -> Iterator[bytes]:
    match = re.search(rb"<parsedwaveforms[^>]*>([^<]+)<", content)
    if match is not None:
        block = base64.b64decode(match[1])
        yield block
        yield block[: 8 + int.from_bytes(block[:4], "little")]


def main() -> None:
    """Fuzz the decoder that is named."""
    if len(sys.argv) < 2 or sys.argv[1] not in DECODERS:
        sys.exit(f"decoders: {', '.join(DECODERS)}")
    name = sys.argv.pop(1)
    decoder, patterns = DECODERS[name]
    scp_sections._check = lambda *_: True  # type: ignore[assignment]
    ishne._verify = lambda *_: []
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds(name, patterns)):
        (corpus / str(number)).write_bytes(content)
    if isinstance(decoder, str):
        suffix = ".npy" if decoder == "numpy" else ""
        decoder = partial(file_of, decoder, folder / f"input{suffix}")
    limits = [f"-max_len={_LONGEST}", "-timeout=10", "-rss_limit_mb=3000"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], str(corpus)], decoder)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
