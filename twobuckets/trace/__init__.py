"""The life of a file, from what S3, the log and this machine remember of it.

events   one thing that happened to a key, and how each source tells it
looking  asks S3 and the log about a few keys, in few requests
present  what is true of a key now, and what happens next
"""
