"""The processor's log group, read: events, what they say, and what became of staged objects.

`events` reads CloudWatch Logs in time order, and follows it. `lines` turns an event into what it
says: an outcome, Lambda's own words, or text. `invocations` gathers the events of one invocation.
`waiting` tells what became of objects that were put into staging.
"""
