"""The experiments of Kvinge et al. (NeurIPS 2022), each as a suite that anyone can run; see README.md."""
