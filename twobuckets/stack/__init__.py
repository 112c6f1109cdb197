"""The CloudFormation stack.

`template` makes its parameters, `plan` makes, applies and watches change sets (`project` from the
settings), `stacks`, `events` and `outputs` read a stack, `artifacts` keeps the processor's zips,
`foreign` finds rules of others that a deployment would wipe, and `destroy` empties and deletes.
"""
