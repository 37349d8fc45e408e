"""The operations of a bucket: each a few lines over the engines."""

from .bucket import AsyncS3Bucket, S3Bucket

__all__ = ["AsyncS3Bucket", "S3Bucket"]
