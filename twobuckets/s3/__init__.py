"""S3 without boto3: its operations as requests, its answers as records, and an engine that sends.

`engine` sends requests by the thousand; `Sender` is its door. `keys` says which keys objects can
have. `listing` iterates over objects, versions and uploads, several key ranges at a time, which
`ranges` splits; `objects` copies and deletes exact versions; `uploads` tells what incomplete
multipart uploads hold. `answers` reads S3's XML, and `xmltext` single texts of it.
"""
