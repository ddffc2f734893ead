# mypy: allow-subclassing-any
"""The sequence networks of the examples: wearable sensors and short texts.

    wearable_gru()      float32 (batch, 128, 6): 2.56 s of accelerometer (g) and gyroscope (rad/s) at 50 Hz
    wearable_cnn()      the same input
    debian_text()       int64 (batch, 20): token numbers, 0 is padding

Outputs are logits: 7 exercises, 16 sections. The blocks are spelled out, as people
write them: attention is one fused projection and `scaled_dot_product_attention`
under a padding mask, not `nn.TransformerEncoderLayer`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW, SENSORS, EXERCISES = 128, 6, 7
WORDS, BUCKETS, LENGTH, SECTIONS = 3000, 1000, 20, 16


def wearable_gru(hidden: int = 112) -> nn.Module:
    """Two GRU layers over the window, the mean over time, a linear layer."""
    return WearableGRU(hidden)


def wearable_cnn(widths: tuple[int, int, int, int] = (64, 96, 128, 128)) -> nn.Module:
    """Four 1-d convolutions over time, each halving it but the last."""
    return WearableCNN(widths)


def debian_text(width: int = 64, heads: int = 4, blocks: int = 3) -> nn.Module:
    """Pre-norm transformer encoder over word embeddings, mean over the words that are there."""
    return TextTransformer(width, heads, blocks)


class WearableGRU(nn.Module):
    """See `wearable_gru`."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(SENSORS, hidden, num_layers=2, batch_first=True, dropout=0.2)
        self.classifier = nn.Linear(hidden, EXERCISES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x)
        return self.classifier(states.mean(1))


class WearableCNN(nn.Module):
    """See `wearable_cnn`."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = SENSORS
        for i, outputs in enumerate(widths):
            layers += [
                nn.Conv1d(inputs, outputs, 5, padding=2, bias=False),
                nn.BatchNorm1d(outputs),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool1d(2)] if i < len(widths) - 1 else []
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(inputs, EXERCISES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x.transpose(1, 2))
        return self.classifier(self.dropout(x.mean(2)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class TextTransformer(nn.Module):
    """See `debian_text`."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1 + WORDS + BUCKETS, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(width, SECTIONS)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        there = tokens != 0
        x = self.dropout(self.tokens(tokens) + self.positions)
        mask = there[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        weight = there.to(x.dtype)[:, :, None]
        mean = (self.norm(x) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.classifier(self.dropout(mean))
