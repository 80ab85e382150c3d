"""The demo: the whole pipeline on this machine, watched from outside while simulated services go wrong."""
