"""Training of one cohort, from a job to results."""
