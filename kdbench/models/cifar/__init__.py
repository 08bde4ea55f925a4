"""The KD literature's networks for 32 x 32 images."""
