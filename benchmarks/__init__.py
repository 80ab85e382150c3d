"""What Tailmark costs, measured beside its alternatives in one run."""
