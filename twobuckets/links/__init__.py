"""Links that open the upload page: minted, listed, revoked. What one allows, broker/ has.

page     where a stack's page is, and what lets it upload
minting  makes a link, and ends one
listing  which links there are, and what came through each
"""
