"""What benchmarks share: contenders, processes that are watched, and figures that are read back. None is run itself."""
