"""A race model: real code against an in-memory S3, under every interleaving that is asked for.

`s3` is S3 as far as the pattern uses it: versions, delete markers, conditions, tags, multipart
copies, and a boto3-like client. `actors` runs each actor in a thread of its own and lets exactly
one of them go on at a time: at every S3 call the schedule decides who is next, and an actor can be
killed between any two calls. `laws` watches every change of the buckets. `world` puts them together
with the uploads, the events and the function's retries.

`jobs` has files that jobs of AWS Batch process, beside invocations. A second kind of actor is any
function of a client: `World.spawn(name, function)`. `reprocessing` has runs of reprocess, and
`operators` somebody who runs doctor. `python -m tests.racemodel` is a storm of random interleavings
with a seed of its own.
"""
