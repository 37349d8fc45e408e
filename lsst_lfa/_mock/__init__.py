"""A mock S3 server inside this process: moto's S3, over a real socket."""
