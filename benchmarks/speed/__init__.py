"""What every stage costs, against a baseline of the same run, its growth, and the machine's limit."""
