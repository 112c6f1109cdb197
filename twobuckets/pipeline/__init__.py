"""The noun: what the parts of a pipeline are, hold and say. Read once here, judged nowhere.

`policies` reads resource policies, `notifications` who is told of a bucket's new objects, and
`lifecycle` a bucket's lifecycle rules.
"""
