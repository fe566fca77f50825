"""Section 4.1: do networks trained with augmentation learn equivariant layers?"""
