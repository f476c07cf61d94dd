"""Evaluations during training: the section `config.evaluations`, opened before the first step."""
