"""The processor's log group, read: events, what they say, and what became of staged objects.

`events` reads CloudWatch Logs in time order, and follows it. `lines` turns an event into what it
says: an outcome, Lambda's own words, or text. `selection` asks for some of the entries only, and
`failures` for what is still to be made good. `waiting` tells what became of objects that were put
into staging: `hearing` listens to the log for it, `foreign` to processors that are not ours, and
`objects` finds where the objects are.
"""
