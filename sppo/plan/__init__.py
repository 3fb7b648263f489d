"""What a run takes in memory and on the network, counted before anything starts: no weights are
read and no device is looked at.
"""
