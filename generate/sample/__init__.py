"""A trained generator at work: clips from texts or from clips, and edits of clips by text."""
