"""Gets objects processed again without ever losing one.

selection  which keys are meant: lists in the forms that people and tools write them; reads files
           only
choice     what was asked for, and what that means in the pipeline
plan       what to do with each; reads S3 only
journal    what was planned, begun and done; one local file
database   the file that the journal is in, and what can be wrong with it
run        one run: its plan in numbers, its steps in order, how fast it may go
running    a run on its way: a canary first, then all
moving     archive to staging; writes S3
overtaken  whether something newer came in between; takes a copy back
waking     staged objects in place; invokes the function
batch      the copies by S3 Batch Operations
"""
