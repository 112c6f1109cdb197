"""Files into staging: walk, plan parts, send, prove what arrived, go on where an upload stopped.

files          paths and folders to files with their keys
listed         lists of files: paths, or what failed in another run
content_type   what a name suggests, the same on every machine
plan           what would be sent
census         how much there is to upload, counted beside the upload
parts          S3's limits as arithmetic
send           one run over files, all over one sender
run            what the files of one run share
following      what was uploaded, on its way through the pipeline
small          a file that goes in one request
large          a file that goes in parts, and goes on from what an earlier run left
stream         standard input
multipart      one multipart upload, from its creation to its proof or its abort
unfinished     what is known of it wherever it is interrupted
checksum       what proves that S3 stored what was read
journal        which incomplete uploads are ours
resume         what S3 keeps of them, and which a file may go on with
initiator      who S3 says began an upload, if it was us
presign        signed uploads for somebody else
page           a web page with everything signed in it that uploads one file
shell          what command lines that send them have to do
curl           the lines for a POSIX shell
powershell     the lines for PowerShell
credentials    temporary credentials for one key
sent           what one command has sent so far, so that the same command goes on after an
               interruption
"""
