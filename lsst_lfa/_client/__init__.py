"""The aiobotocore client: what is set in it, and who owns it."""
