"""Clinical files: pictures and cine loops as scanners and viewers store them, restored where they are echo.

    open_source(path) ─► Source ─► open_cine(source, ...) ─► Cine ─► restore_cine(models, cine) ─► open_sink(path, cine)

A `Source` decodes frames one after the other; a `Cine` knows which of them, which pixels and which grey window are asked
for. Nothing here holds all frames at once: memory is that of one batch, however long the loop is.
"""
