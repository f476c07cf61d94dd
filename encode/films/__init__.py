"""From the vectors of a film's moments to spans, shots and summaries."""
