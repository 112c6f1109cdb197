"""What AWS says of a pipeline, each fact read at most once, from several threads.

`lookups` makes the calls and says what a refusal means for checks; `buckets`, `function`, `queues`
and `stack` know which call tells what.
"""
