"""TP4: segmentation with a U-Net, and volumes with 3-D convolutions."""
