"""Pages to look and try: a server of this machine alone, one HTML file for each page, no physics of its own."""
