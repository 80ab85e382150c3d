"""`tailmark status`: how the flows, their topics and their alerts are doing."""
