"""One file for each family of towers."""
