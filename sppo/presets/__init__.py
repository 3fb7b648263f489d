"""Configurations that ship with sppo: `sppo-cli up quickstart`."""
