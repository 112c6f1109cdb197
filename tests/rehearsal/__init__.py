"""The on-call rehearsal: a pipeline on the embedded AWS in a mess whose truth is known.

`mess` makes it and remembers what it made, `sentences` holds every number and sentence of doctor
and status against that, and `python -m tests.rehearsal` plays it in full: 3,000 objects, the wait
until every try must be over, every remedy pasted, and the archive compared with what was sent.
"""
