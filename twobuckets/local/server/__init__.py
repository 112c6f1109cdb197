"""The server process of the embedded AWS; the only place that imports ministack.

`launch` prepares the process and serves; `guard` decides who may ask; `invocations` queues what S3
asks Lambda to do; `children` runs it, each in a process that runs `child`; `checkpoint` keeps the
services' state on disk. The rest fills gaps of the emulator: `s3_gaps`, `multipart_gaps`, `bodies`
(reads of objects), `template_gaps` (CloudFormation) and `log_gaps` (CloudWatch Logs).

The emulator offers none of these as settings, so they are set into its modules, and its version is
pinned exactly. Each function that replaces something says in its docstring which gap it fills;
`tests/local/test_gaps_are_needed.py` says which of them a newer version fills itself.
"""
