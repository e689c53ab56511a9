"""kopf: an object changed, so its reconciler is woken. Nothing else."""
