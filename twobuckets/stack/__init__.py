"""The CloudFormation stack: made, changed and deleted.

template                 template.yaml as text, and its parameters from the settings
project                  deploying the project of the settings: where to, with which artifact
artifacts                the account's artifact bucket, filled by content hash
plan                     change sets: made, applied, watched
stacks, outputs, events  what a stack is, says of its pipeline, and goes through
existing                 buckets that were there before the stack, which it is built around
switching                what arrives while a deployment changes what wakes the processor
foreign                  rules of others on a bucket, which a deployment must not wipe
destroy                  empties the buckets and deletes the stack
"""
