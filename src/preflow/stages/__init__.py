"""The stages: each one function, specification in, files out."""
