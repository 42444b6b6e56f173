"""The sample images of style transfer, and the code that draws them."""
