"""Against Ceph's RADOS gateway, an S3 that nobody here wrote."""
