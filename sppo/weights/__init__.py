"""Getting the learner's weights into running engines: publisher, receiver, and the transports
between them.
"""
