"""TP3: convolutional networks and computer vision."""
