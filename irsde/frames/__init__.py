"""Clinical files: pictures and cine loops as scanners and viewers store them, restored where they are echo.

    open_source(path) ─► Source ─► open_cine(source, ...) ─► Cine ─► restore_cine(models, cine) ─► open_sink(path, cine)

A `Source` decodes frames one after the other; a `Cine` knows which of them, which pixels and which grey window are asked
for. Nothing here holds all frames at once: memory is that of one batch, however long the loop is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ussim.lazy import attach

_HOME = {
    "Cine": "cine",
    "Source": "source",
    "open_cine": "cine",
    "open_sink": "sinks",
    "open_source": "opening",
    "restore_cine": "restoring",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .cine import Cine, open_cine
    from .opening import open_source
    from .restoring import restore_cine
    from .sinks import open_sink
    from .source import Source
else:  # what is not listed above is unknown to a type checker
    __getattr__, __dir__ = attach(__name__, _HOME)
