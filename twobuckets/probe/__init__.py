"""A small file of our own, sent end to end to see whether files arrive, and how long that takes.

sending   sends it, and times each stage of its way
cleaning  takes away what was sent, from both buckets
"""
