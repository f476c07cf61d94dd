"""The verbs `twinreel generate ...`."""
