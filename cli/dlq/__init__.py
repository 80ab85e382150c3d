"""`tailmark dlq`: what was rejected, and its way back."""
