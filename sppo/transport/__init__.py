"""Tickets and groups between roles: codec, broker interface, Redis broker, in-memory broker,
embedded server.
"""
