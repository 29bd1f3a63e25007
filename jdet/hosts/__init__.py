"""Several processes as one run: who they are, that they live, that they agree."""
