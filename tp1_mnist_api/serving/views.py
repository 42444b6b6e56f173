"""Several looks at a digit that was found in a picture; their answers are averaged.

MNIST's writers and pens are not everyone's: a digit that is drawn a little smaller, narrower and
leaning to either side is often nearer to what the model knows. Chosen on drawn validation digits.
"""

import numpy as np
from PIL import Image

WARPS = tuple((0.85, width, lean) for width in (0.85, 0.7) for lean in (0, 0.2, -0.2))
"""Height and width over the original's, and columns of lean per row."""
CENTRE = 13.5


def views_of(pixels: np.ndarray) -> np.ndarray:
    """`pixels`, (1, 784) float32 in 0..1, and its warps below it: (1 + warps, 784)."""
    picture = Image.fromarray((pixels.reshape(28, 28) * 255).round().astype(np.uint8))
    views = [pixels]
    for height, width, lean in WARPS:
        # From a place in the view to one in the original, as Pillow wants it.
        across = (1 / width, lean, CENTRE * (1 - 1 / width - lean))
        down = (0, 1 / height, CENTRE * (1 - 1 / height))
        warped = picture.transform(
            (28, 28), Image.Transform.AFFINE, across + down, Image.Resampling.BILINEAR
        )
        views.append(np.asarray(warped, np.float32).reshape(1, 784) / 255)
    return np.concatenate(views)
