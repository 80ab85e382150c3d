"""Detectors against labelled truth: the flow's own kernels on anybody's series, and what their alerts are worth."""
