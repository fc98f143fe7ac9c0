"""Making a dataset: pairs, shards, the build and its checks."""
