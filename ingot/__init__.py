"""ingot: an S3 gateway over content-addressed storage, as a library and as ``ingot serve``."""
