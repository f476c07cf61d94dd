"""Write what torch's LSTM and GRU give for packed sequences: `recurrent.npz`, made with torch 2.14.1 in float32.

`python tests/golden/make_recurrent.py tests/golden/recurrent.npz`
"""

import sys

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = [3, 6, 1]
kept = {"lengths": np.array(LENGTHS, np.int32)}
torch.manual_seed(0)
x = torch.randn(3, 6, 5)
kept["x"] = x.numpy()
for name, layer_class in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
    for sides in (1, 2):
        layer = layer_class(5, 4, num_layers=2, bidirectional=sides == 2, batch_first=True)
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
        with torch.no_grad():
            out, state = layer(packed)
        last = state[0] if name == "lstm" else state  # [layers * sides,B,4]
        case = f"{name}{sides}/"
        kept[case + "out"] = pad_packed_sequence(out, batch_first=True, total_length=6)[0].numpy()
        kept[case + "last"] = torch.cat(list(last[-sides:]), dim=1).numpy()
        kept |= {case + key: value.numpy() for key, value in layer.state_dict().items()}
np.savez_compressed(sys.argv[1], **kept)
