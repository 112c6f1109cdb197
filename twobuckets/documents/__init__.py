"""What the documents say that AWS keeps for a bucket or a function. Pure: nothing here calls AWS.

`policies` reads resource policies, `notifications` who is told of a bucket's new objects, and
`lifecycle` a bucket's lifecycle rules.
"""
