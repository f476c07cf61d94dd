"""Starting several processes of a verb: here, under SLURM, on GKE, on Cloud TPU VMs."""
