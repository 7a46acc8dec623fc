"""The student report: what it claims, how each claim is judged on the records of its experiments, and its page."""
