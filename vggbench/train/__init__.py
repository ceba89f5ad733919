"""Training by the paper's recipe (section 3.1)."""
