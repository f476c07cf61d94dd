"""Descriptions and answers by a language model, from what a dual tower finds in a clip."""
