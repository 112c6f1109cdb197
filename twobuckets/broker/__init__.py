"""Runs in Lambda behind the upload page: signs S3's requests for whoever shows a link's token.

It never calls S3 for the page: creating an upload, its parts, completion, abort and the question
what became of a file are signed here and sent by the browser. What it fetches itself is the link's
grant. Of this program it brings the page and `sigv4`, and of others nothing but the standard
library: it is the one function that the internet reaches.

handler  one request of the HTTP API to one answer
actions  what a page may ask for, and what is signed for it
grants   what a link allows, and whose it is; the page that minting and this side share
paths    file names as the ends of keys
storage  S3, as far as it is called or signed for here
"""

from twobuckets.broker.handler import handler

__all__ = ["handler"]
