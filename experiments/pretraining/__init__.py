"""Section 4.3: pretrained weights against random ones."""
