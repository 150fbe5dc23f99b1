import numpy as np
import torch
from safetensors.torch import save


def made_by(result):
    names = {"images": "images", "image": "images", "frames": "frames", "audios": "audio"}
    return save(
        {
            names[k]: torch.from_numpy(np.ascontiguousarray(v[0])).float()
            for k, v in result.items()
            if k in names
        }
    )
