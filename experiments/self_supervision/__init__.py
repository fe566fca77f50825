"""Section 4.4: are self-supervised models more invariant than supervised ones?"""
