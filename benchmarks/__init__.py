"""What is fast, against whom, and how far from the limit; each file runs alone."""
