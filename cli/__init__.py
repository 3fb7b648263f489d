"""The command line. Installed as `sppo_cli`, so that no generic top-level `cli` lands in an
environment (ADR 0002).
"""
