"""Reports: what stands on disk, as one page that needs nothing else. No torch."""
