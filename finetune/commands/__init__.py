"""The verbs `finetune`, `predict` and `summarise`."""
