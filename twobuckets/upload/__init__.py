"""Files into staging: walk, plan parts, send, prove what arrived, go on where an upload stopped.

files.find_files     paths and folders → File, or Failed with the reason
parts.plan_parts     a size → parts within S3's limits; pure
journal.Journal      which incomplete uploads are ours; a help, never the truth
resume.find_resumable  what S3 keeps of an upload, checked against the file's own bytes
send.Upload          all of it over one sender → Uploaded, Failed, and Kept when interrupted
presign.presign_put    the same for somebody else: one signed request, its terms bound
credentials.request_credentials  the right to upload one key, as temporary credentials
"""
