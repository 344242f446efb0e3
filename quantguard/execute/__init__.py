"""Programs that a model wrote, run against tests: in a sealed container of their own, and nowhere else."""
