"""The `code` scorer: programs that a model wrote, run against given tests in a sandbox."""
