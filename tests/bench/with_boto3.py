"""boto3 as a program: its transfer manager, awscrt's S3 client, or put_object in threads."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config

_THREADS = 64
_PART_BYTES = 8 << 20


def main() -> None:
    """Run `transfer|crt|threads BUCKET PATH`."""
    way, bucket, place = sys.argv[1:]
    path = Path(place)
    if way == "crt":
        upload_with_crt(bucket, path)
        return
    client = boto3.client("s3", config=Config(max_pool_connections=_THREADS))
    if way == "threads":
        with ThreadPoolExecutor(_THREADS) as pool:
            list(
                pool.map(
                    lambda found: client.put_object(
                        Bucket=bucket, Key=found[0], Body=found[1].read_bytes()
                    ),
                    iter_files(path),
                )
            )
        return
    config = TransferConfig(
        max_concurrency=16 if path.is_file() else _THREADS,
        multipart_chunksize=_PART_BYTES,
        preferred_transfer_client="classic",
    )
    with create_transfer_manager(client, config) as manager:
        uploads = [manager.upload(str(file), bucket, key) for key, file in iter_files(path)]
        for upload in uploads:
            upload.result()


def upload_with_crt(bucket: str, path: Path) -> None:
    """Upload with the S3 client of AWS's common runtime, as boto3 and the AWS CLI set it up."""
    from botocore.session import Session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper,
        BotocoreCRTRequestSerializer,
        CRTTransferManager,
        create_s3_crt_client,
    )

    session = Session()
    wrapper = BotocoreCRTCredentialsWrapper(session.get_credentials())
    client = create_s3_crt_client(
        "us-east-1",
        wrapper.to_crt_credentials_provider(),
        part_size=_PART_BYTES,
        verify=os.environ["AWS_CA_BUNDLE"],
    )
    endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
    serializer = BotocoreCRTRequestSerializer(session, client_kwargs=endpoint)
    with CRTTransferManager(client, serializer) as manager:
        uploads = [manager.upload(str(file), bucket, key) for key, file in iter_files(path)]
        for upload in uploads:
            upload.result()


def iter_files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield keys and files of a folder, or the one file."""
    if path.is_file():
        yield path.name, path
        return
    for file in path.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(path)), file


main()
