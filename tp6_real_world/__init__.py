"""Industrial tasks, one folder each: a task adds its folder and touches nothing else."""
