"""Looking at a store: report, preview, export."""
