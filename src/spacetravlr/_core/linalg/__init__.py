"""Linear algebra on small dense and block-arrow matrices, and the innermost loops."""
