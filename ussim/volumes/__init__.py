"""MRI and picture files as volumes: any format, one `Volume`."""
