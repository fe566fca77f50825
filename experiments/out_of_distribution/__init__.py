"""Section 4.2: does learned invariance hold for out-of-distribution data?"""
