"""Output that no code page stops: what an encoding lacks is written in the letters that it has."""

from __future__ import annotations

import codecs
import sys
import unicodedata

HANDLER = "ussim.nearest"
NEAREST = {
    "→": "->", "►": ">", "─": "-", "−": "-", "×": "x", "…": "...", "≥": ">=", "≤": "<=", "≈": "~", "∞": "inf", "√": "sqrt",
}  # fmt: skip


def nearest(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding's error by the nearest ASCII: λ as lambda, é as e, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def use_nearest() -> None:
    """Have stdout and stderr of this process write what their encoding lacks as `nearest` does."""
    codecs.register_error(HANDLER, nearest)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=HANDLER)


def _plain(letter: str) -> str:
    if letter in NEAREST:
        return NEAREST[letter]
    words = unicodedata.name(letter, "").split()
    if words[:1] == ["GREEK"] and "LETTER" in words:
        name = words[words.index("LETTER") + 1].lower().replace("lamda", "lambda")
        return name.capitalize() if "CAPITAL" in words else name
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or "?"
