"""Store on disk: its layout, where it lies, how it is written and read."""
