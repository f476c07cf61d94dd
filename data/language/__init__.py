"""Transcripts by speech recognition, and translations, from manifest to manifest."""
