"""What one archived file costs, beside other handlers and other ways to read from S3.

cases       what is archived, and what each contender is asked to do with it
invoking    runs a handler as Lambda does, in a process of its own, and tells what that took
contenders  the handlers that ours is compared with
user        what the user's function does in ours
reading     reads one object in many ways, in a process of its own
costs       requests and seconds as dollars, and the tables
"""
