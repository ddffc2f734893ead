"""Networks in which a layer's first dimension is not the samples, or not the samples alone.

Sequence-first values, attention's (positions · samples, channels), windows of one sample
side by side, and a table that no sample enters.
"""

from __future__ import annotations

import torch
from torch import nn


class Encoder(nn.Module):
    """One transformer layer between linear layers; batch_first decides the order that it works in."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first, dropout=0.0)
        self.inp = nn.Linear(6, 16)
        self.enc = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.inp(x)
        x = self.enc(x) if self.batch_first else self.enc(x.transpose(0, 1)).transpose(0, 1)
        return self.head(x.mean(1))


class Steps(nn.Module):
    """Linear layers over a sequence, batch first or sequence first: the same function."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.a, self.b, self.head = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(x.mean(1 if self.batch_first else 0))


class SequenceFirstLSTM(nn.Module):
    """Two recurrent layers and a projection, all sequence first."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 8, num_layers=2)
        self.mix, self.head = nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.head(torch.relu(self.mix(self.rnn(x.transpose(0, 1))[0])).mean(0))


class TableOfPositions(nn.Module):
    """A small network turns a table into one offset per position, as Swin v2 does: no sample enters it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.linspace(-1, 1, 10).reshape(5, 2))
        self.wide, self.narrow = nn.Linear(2, 6), nn.Linear(6, 8)
        self.inp, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        offset = self.narrow(torch.relu(self.wide(self.table)))
        return self.head(torch.relu(self.inp(x) + offset).mean(1))


def _vit():
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 8, 1, 2, 16, 24, num_classes=3), (3, 16, 16)


def _swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3), (3, 32, 32)


NETS = {
    "encoder": lambda: (Encoder(True), (5, 6)),
    "encoder, sequence first": lambda: (Encoder(False), (5, 6)),
    "steps, sequence first": lambda: (Steps(False), (5, 6)),
    "lstm, sequence first": lambda: (SequenceFirstLSTM(), (5, 6)),
    "table": lambda: (TableOfPositions(), (5, 6)),
    "vit": _vit,
    "swin": _swin,
}


def build(name):
    """(module, shape of a sample); heads that start at zero are drawn, or the output would be constant."""
    torch.manual_seed(0)
    net, shape = NETS[name]()
    for p in net.parameters():
        if p.dim() > 1 and not p.any():
            nn.init.normal_(p, std=0.3)
    return net.eval(), shape
