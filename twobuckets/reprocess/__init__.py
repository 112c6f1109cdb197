"""Gets objects processed again without ever losing one.

selection   which keys are meant            reads files only
plan        what to do with each            reads S3
journal     what was planned, begun, done   writes one local file
moving      archive → staging               writes S3
waking      staged objects in place         invokes the function
"""
