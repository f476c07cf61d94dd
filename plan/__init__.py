"""`twinreel plan`: compile a config's train step for a pod without the pod; memory, time and cost."""
