"""The networks of the experiments in colour, in plain PyTorch.

The CNN for digits is `models/digits_cnn.py`, the C8-CNN `geed_exporters/escnn/networks.py`.
"""
