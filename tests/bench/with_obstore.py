"""obstore as a program: upload files or list a bucket; runs where obstore is installed."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from obstore.store import S3Store


def main() -> None:
    """Run `upload BUCKET PATH` or `ls BUCKET`."""
    verb, bucket, *rest = sys.argv[1:]
    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        region="us-east-1",
        virtual_hosted_style_request=False,
    )
    if verb == "ls":
        for page in store.list(chunk_size=1000):
            for row in page:
                sys.stdout.write(f"{row['last_modified']} {row['size']} {row['path']}\n")
        return
    path = Path(rest[0])
    if path.is_file():
        store.put(path.name, path, chunk_size=8 << 20, max_concurrency=16)
        return
    with ThreadPoolExecutor(32) as pool:
        files = [file for file in path.rglob("*") if file.is_file()]
        list(
            pool.map(lambda file: store.put(str(file.relative_to(path)), file.read_bytes()), files)
        )


main()
