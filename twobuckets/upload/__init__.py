"""Files into staging: walk, plan parts, send, prove what arrived, go on where an upload stopped.

files.find_files     paths and folders → File, or Failed with the reason
plan.plan            what would be sent; parts.plan_parts cuts a size within S3's limits
send.Upload          files over one sender → Uploaded, Failed, and Kept when interrupted
small, large, stream how one file goes: in one request, in parts, in parts of unknown number
run.Run              what the files of one run share
journal, resume      which incomplete uploads are ours; what S3 has of them
presign, credentials signed uploads and scoped credentials for somebody else
"""
