"""Data sets: one parquet schema for every source, its checks, and one module for each source."""
