"""The noun: what the parts of a pipeline are, hold and say. Read once here, judged nowhere.

versions       one version of a key, and whether two of them are the same file
reading        one version of an object, or a range of its bytes
conversation   many talks with S3, each about one key and written as a generator
deleting       deletes exactly one staged version that the archive holds
waking         asks the processor for exactly one version
facts          all that AWS says of one pipeline, each fact read at most once
lookups        the calls themselves, from several threads, and what a refusal of one means
buckets        what S3 says of a bucket's settings
function       what Lambda, IAM and CloudWatch say of the function and its log
jobs           jobs of AWS Batch that have files, and their queue
queues         what SQS says of the queues that feed the function or take its failures
redriving      dead letters, and their way back to where they came from
stack          what CloudFormation says of the stack
console        where AWS shows the parts in its console
retries        how often an event is tried before it is given up, and how long that takes
policies       what resource policies say
notifications  who is told of a bucket's new objects
topics         what SNS and EventBridge pass on of S3's events, and to whom
cors           what a bucket's CORS rules let web pages send and read
lifecycle      what a bucket's lifecycle rules apply to
entries        our own rules beside those of others: read, merged, written, read again
status         the pipeline at a glance
fleet          several pipelines, a line each
"""
