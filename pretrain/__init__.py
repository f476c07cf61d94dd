"""Contrastive pretraining: the objective, the `pretrain` and `demo` verbs, the step benchmark."""
