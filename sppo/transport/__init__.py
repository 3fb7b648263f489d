"""Tickets and groups between roles: frames, the broker's interface, the broker over Redis
and in memory, the embedded server.
"""
