"""Workdirs in object stores: objects, the lease of the one writer, uploads with a commit, and local copies."""
