"""The operations tool for two S3 buckets and a Lambda."""

__version__ = "0.2.0"
