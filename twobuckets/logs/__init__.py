"""The processor's log group, read: events, what they say, and what became of staged objects.

events     log events across all streams: a range of time, or what is still to come
lines      what an event says: an outcome, Lambda's own words, or text
selection  which entries are asked for
naming     what the log says of a few keys, in few requests however long it is
recent     files by what became of them lately, for a glance
use        what invocations took lately, by Lambda's reports
failures   what failed and was not made good since
waiting    what became of objects that were put into staging, told once for each
hearing    what the log says of keys that are waited for, as it comes
foreign    the same from a processor that is not ours
objects    where objects are, as S3 shows it, in few requests
ends       many objects followed until each has come to an end, and counted
errors     what failures have in common: their kind, their error in one line, and what varies in it
groups     what became of files, with those that failed with the same error told together
"""
