"""Runs a flow as a cluster of processes on one machine, and keeps it running."""
