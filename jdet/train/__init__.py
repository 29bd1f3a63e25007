"""Training: schedule, optimiser, sharded step, checkpoints, and the loop that runs them."""
