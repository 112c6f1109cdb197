"""The noun: what the parts of a pipeline are, hold and say. Read once here, judged nowhere.

`lookups` makes the calls, each at most once and from several threads, and says what a refusal
means; `buckets`, `function`, `queues` and `stack` know which call tells what. `policies` reads
resource policies, `notifications` who is told of a bucket's new objects, and `lifecycle` a bucket's
lifecycle rules. `status` shows all of it at a glance.
"""
