"""The server process of the embedded AWS; the only place that imports ministack.

launch                   prepares the process and serves: lock, port, key, an orderly end
guard                    which requests reach the emulator at all
invocations              the queue of what S3 asks Lambda to do, on disk
children                 runs functions in child processes, one per concurrent invocation
child                    what runs in such a process
checkpoint               the services' state on disk
s3_gaps, multipart_gaps  what the emulator's S3 lacks, one function a gap
bodies                   reads of objects, which stay on disk
metric_gaps              what its metrics lack
queue_gaps               what its queues, and its alarms on them, lack
batch_gaps               jobs of AWS Batch that run, and the types of its CloudFormation
template_gaps            what its CloudFormation leaves out of a template
log_gaps                 FilterLogEvents as AWS documents it

The emulator offers none of these as settings, so they are set into its modules, and its version is
pinned exactly. Each function that replaces something says in its docstring which gap it fills;
`tests/local/test_gaps_are_needed.py` says which of them a newer version fills itself.
"""
