"""The sample pictures of style transfer, and the code that draws them."""
