"""`twinreel plan`: compile a config's train step for a pod without the pod, and say what it would cost."""
