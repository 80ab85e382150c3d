"""`tailmark replay`: a slice of the past through a flow once more."""
