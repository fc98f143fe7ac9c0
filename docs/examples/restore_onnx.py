"""Restore a picture by a file of `irsde export`, without PyTorch: python restore_onnx.py model.onnx image.png clean.png."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, picture, output = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
grey = np.asarray(Image.open(picture).convert("L"), np.float32) / 255
given = {"image": grey[None, None]}  # (1, 1, nz, nx), of any size
for each in session.get_inputs():
    if each.name == "noise":  # of a model that draws: another seed is another sample
        draws = each.shape[1]
        given["noise"] = np.random.default_rng(0).standard_normal((1, draws, *grey.shape), dtype=np.float32)
restored = session.run(None, given)[0][0, 0]
Image.fromarray(np.uint8(np.rint(255 * restored))).save(output)
print(f"{output}: {grey.shape[0]} x {grey.shape[1]} pixels")
