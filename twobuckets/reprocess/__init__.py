"""Gets objects processed again without ever losing one.

selection  which keys are meant: lists in the forms that people and tools write them; reads files
           only
choice     what was asked for, and what that means in the pipeline
plan       what to do with each; reads S3 only
items      one object of a run: what to do, how far it is, what came of it
journal    what was planned, begun and done; one local file
journals   the folder of them: which run to go on with, and which are over
opening    the run that a command is about: one to go on with, or a new one with its plan
run        one run: its plan in numbers, its steps in order, how fast it may go
running    a run on its way: a canary first, then all
moving     archive to staging; writes staging only
overtaken  whether something newer came in between; takes a copy back
waking     staged objects in place; invokes the function
batch      the copies by S3 Batch Operations

Nothing here ever deletes from the archive, or writes to it. An archived version is copied back to
staging and stays where it is until the processor has archived the copy over it. So whatever happens
to the copy, whether it is rejected, or covered by another upload or a late delete marker, or never
looked at again, what was archived is archived still. In an archive that keeps versions the version
that was replaced is then a noncurrent one, of the same bytes, and expires by the bucket's lifecycle
rule as anything else that was replaced; until then it takes up room. That is the price. Deleting it
sooner could only be right after the processor is done, which a run without --wait does not see, and
giving the function the right to delete from the archive would be a worse one.

The other half of the design is in the processor: a copy that was brought back carries the origin
note of the archived version, and counts as old as that. If something newer was archived before the
copy came, the copy is superseded, and never archived over it, also where the archive keeps no
versions. Other processors know no notes: with them, an archive without versions is left alone. A
version that somebody chose by its id or by a time goes back without its note, as a new file.
"""
