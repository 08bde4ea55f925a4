"""Made-up batches, models and modules for the contract checks."""
