"""Further terms of the pretraining loss, beside the contrastive one over pairs of modalities."""
