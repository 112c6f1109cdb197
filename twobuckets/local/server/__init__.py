"""The server process of the embedded AWS; the only place that imports ministack.

`launch` prepares the process and serves; `guard` decides who may ask; `invocations` queues what S3
asks Lambda to do; `children` runs it, each in a process that runs `child`; `template_gaps` applies
what the emulator's CloudFormation leaves out, `log_gaps` what its log queries do, `bodies` what its
reads do, `multipart_gaps` what its multipart uploads do; `checkpoint` keeps the services' state on
disk.

The emulator offers none of these as settings, so they are set into its modules. That is why its
version is pinned exactly, and why each of these modules says in one place what it replaces.
"""
