"""What people have (a folder, a table, a benchmark's annotation files, an archive) to a list of clips."""
