"""`twinreel launch`: a verb in several processes, on this machine, under SLURM, on GKE or on Cloud TPU VMs."""
