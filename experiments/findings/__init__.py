"""The page of findings: what the results say of each claim of the paper, and of the method itself."""
