"""The noun: what the parts of a pipeline are, hold and say. Read once here, judged nowhere.

`lookups` makes the calls, each at most once and from several threads, and says what a refusal
means; `buckets`, `function`, `queues` and `stack` know which call tells what. `policies` reads
resource policies, `notifications` who is told of a bucket's new objects, and `lifecycle` a bucket's
lifecycle rules. `status` shows all of it at a glance.

Of objects, `versions` has the record of one version of a key and judges whether two are the same
file; `conversation` keeps many talks with S3 about single keys going; and `waking` asks the
processor for exactly one version.
"""
