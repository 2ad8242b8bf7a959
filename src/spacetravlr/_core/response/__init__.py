"""From coefficients to derivatives, propagation and summaries of change."""
