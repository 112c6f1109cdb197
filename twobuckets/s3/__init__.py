"""S3 without boto3: its operations as requests, its answers as records, and an engine that sends.

engine      sends requests by the thousand; `Sender` is its door
operations  every operation, built and read here and nowhere else
answers     S3's XML answers as records
xmltext     single texts of that XML
keys        which keys objects can have
listing     objects, versions and uploads, several key ranges at a time
ranges      how a listing is split into key ranges and put in order again
deletes     exact versions by the thousand, and what became of each
refusals    why S3 did not do what was asked of it, in words
uploads     incomplete multipart uploads with what they hold
"""
