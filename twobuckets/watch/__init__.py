"""The pipeline, looked at again and again: what its parts hold now, and its last half an hour.

gathering  one look after another, each in few requests, whatever can't be reached
minutes    what the log said, minute by minute, in as much memory after a day as after a minute
expense    what looking costs
"""
