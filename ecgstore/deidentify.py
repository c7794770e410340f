"""Replace what names a person by what only the holder of a key can trace back.

A patient's id becomes a keyed digest (HMAC-SHA-256, RFC 2104). The key is a file outside the
warehouse: whoever gets a copy of the warehouse cannot try out ids, and with the same key the same
patient is recognised in every later ingest.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import os
import re
import secrets
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecgstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "OLDEST_SHOWN",
    "Deidentifier",
    "folded",
    "key_file",
    "load_key",
    "name_words",
    "names_somebody",
    "pseudonym_key",
]

OLDEST_SHOWN = 90.0
"""Age that stands for all above 89 when ages are pooled (HIPAA safe harbour, 45 CFR 164.514)."""

_KEY_BYTES = 32
_DIGITS = 16  # 64 bits: two of ten million patients share a pseudonym with a chance of 3e-6
_PSEUDONYM = re.compile(r"([0-9a-f]{4})-[0-9a-f]{16}")
_WHOLE_ONLY = 3  # letters of a name up to which it is looked for as a whole word only
_LONG_NUMBER = 6  # digits of an id that is found however it is parted
# Words of file names and headers that name nobody.
_PLAIN = frozenset(
    {
        "aecg",
        "anonymous",
        "data",
        "demo",
        "ecg",
        "ekg",
        "example",
        "export",
        "female",
        "file",
        "holter",
    }
    | {"lead", "leads", "male", "none", "patient", "record", "rest", "resting", "sample", "signal"}
    | {"signals", "subject", "test", "unknown", "xml"}
    | {"dr", "hr", "id", "ii", "iv", "lr", "md", "mr", "mrs", "ms", "no", "of", "vi", "xx"}
)


def key_file() -> Path:
    """Return where the key is: ``ECGSTORE_KEY``, else the user's configuration folder."""
    given = os.environ.get("ECGSTORE_KEY")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "ecgstore" / "patients.key"


def load_key(path: Path | None = None, *, outside: Path | None = None, make: bool = True) -> bytes:
    """Return the key of a file, which is made on first use, for its owner alone (mode 0600).

    Args:
        path: The file; `key_file` by default.
        outside: A warehouse that must not hold it.
        make: Whether to make a file that is not there; else an empty key is returned.

    Raises:
        UsageError: The file is inside the warehouse, is not a key, others may read it, or it
            cannot be made.
    """
    path = path or key_file()
    if outside is not None and path.resolve().is_relative_to(outside.resolve()):
        msg = "The key that hides patients' ids lies inside the warehouse."
        raise UsageError(msg, hint="Move it elsewhere and name it in ECGSTORE_KEY.")
    try:
        if make and not path.exists():
            _make(path)
        if not path.exists():
            return b""
        mode = path.stat().st_mode
        text = path.read_text("ascii").strip() if stat.S_ISREG(mode) else ""
        key = bytes.fromhex(text)
    except ValueError:  # UnicodeDecodeError is one
        key = b""
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "input/output error"
        msg = f"The key that hides patients' ids cannot be used: {why}."
        hint = "Name a file that can be written in ECGSTORE_KEY, or keep the ids with --keep-ids."
        raise UsageError(msg, hint=hint) from error
    if len(key) != _KEY_BYTES:
        msg = f"{path.name!r} is not a key: {2 * _KEY_BYTES} hexadecimal digits were expected."
        raise UsageError(msg, hint="Name the right file in ECGSTORE_KEY.")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        msg = f"Others may read {path.name!r}, the key that hides patients' ids."
        raise UsageError(msg, hint="Take that right away: chmod 600.")
    return key


def pseudonym_key(patient_id: str) -> str | None:
    """Return which key made a pseudonym, four digits of its digest; None for a plain id."""
    match = _PSEUDONYM.fullmatch(patient_id)
    return match[1] if match else None


@dataclass(frozen=True)
class Deidentifier:
    """How what a source says of a person enters the warehouse.

    Attributes:
        key: Key of the digests; None keeps ids as they are.
        space: Whose ids they are: a public dataset numbers its patients itself, so that its
            patient 1 is nobody else's; all other sources share the empty name.
        shift_days: Most days by which a patient's dates are moved, either way; 0 for none.
        pool_ages: Whether ages above 89 become `OLDEST_SHOWN`.
    """

    key: bytes | None = None
    space: str = ""
    shift_days: int = 0
    pool_ages: bool = False

    def patient(self, patient_id: str) -> str:
        """Return what stands for a patient's id."""
        if self.key is None:
            return patient_id
        return f"{self.mark}-{self._digest('patient', self.space, patient_id.strip())}"

    def check(self, patient_ids: Iterable[str | None]) -> None:
        """Check that pseudonyms made before are of the same key.

        Raises:
            UsageError: They are of another: the same patient would become two.
        """
        if self.key is not None:
            marks = {pseudonym_key(one) for one in patient_ids if one}
            if marks - {None, self.mark}:
                msg = "The patients of this warehouse were hidden with another key than yours."
                hint = "Name the key that was used in ECGSTORE_KEY, or begin another warehouse."
                raise UsageError(msg, hint=hint)

    @property
    def mark(self) -> str:
        """Four digits that tell one key from another."""
        return hashlib.sha256(self.key or b"").hexdigest()[:4]

    def name(self, name: str) -> str:
        """Return what stands for the name of a file that names a person."""
        return f"hidden-{self._digest('name', name)}"

    def shifted(self, when: dt.datetime, patient_id: str | None) -> dt.datetime | None:
        """Return a time moved by the patient's own number of days, which keeps intervals.

        Times of nobody known are left out rather than moved by a number that others share.
        """
        if not self.shift_days:
            return when
        if patient_id is None:
            return None
        number = int(self._digest("days", self.space, patient_id.strip()), 16)
        days = number % (2 * self.shift_days + 1) - self.shift_days
        with contextlib.suppress(OverflowError):
            return when + dt.timedelta(days=days)
        return None

    def age(self, age: float) -> tuple[float, bool]:
        """Return an age as it is to be shown, and whether it was pooled."""
        pooled = self.pool_ages and age >= OLDEST_SHOWN
        return (OLDEST_SHOWN, True) if pooled else (age, False)

    def _digest(self, *words: str) -> str:
        message = "\0".join(words).encode("utf-8", "surrogatepass")
        return hmac.new(self.key or b"", message, hashlib.sha256).hexdigest()[:_DIGITS]


def folded(text: str) -> str:
    """Return a text in small letters without accents, however it was composed."""
    if text.isascii():
        return text.lower()
    bare = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in bare if not unicodedata.combining(letter))


def name_words(texts: Iterable[str]) -> frozenset[str]:
    """Return what to look for to find the names and ids of some texts: see `names_somebody`.

    Example:
        >>> sorted(name_words(["ROE^Jane", "731-900.46", "Dr. Ng"]))
        ['731', '73190046', '900', 'jane', 'ng', 'roe']
    """
    found: set[str] = set()
    for text in map(folded, texts):
        words = [word for word in re.split(r"[\W_]+", text) if word]
        found.update(word for word in words if len(word) > 1 + word.isdecimal())
        number = "".join(words)
        if number.isdecimal() and len(words) > 1 and len(number) >= _LONG_NUMBER:
            found.add(number)
    return frozenset(word for word in found - _PLAIN if word.strip("0"))


def names_somebody(text: str, words: Iterable[str]) -> bool:
    """Tell whether a name or id stands in a text such as the name of a file.

    Short ones must be words of their own there; long numbers may be parted by anything.

    Args:
        text: The text.
        words: As `name_words` gives them.
    """
    own = folded(text)
    parts = re.split(r"[\W_]+", own)
    joined, single = "".join(parts), set(parts)
    return any(
        word in single
        if len(word) <= _WHOLE_ONLY
        else word in own or (word[0].isdecimal() and len(word) >= _LONG_NUMBER and word in joined)
        for word in words
    )


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):  # another process made it meanwhile
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # whole at once, and never over another
        finally:
            draft.unlink()
