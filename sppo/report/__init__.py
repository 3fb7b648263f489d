"""The report of runs: what stands in their directories as one HTML page."""
