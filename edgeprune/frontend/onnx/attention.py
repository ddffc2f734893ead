"""Attention in one node: the standard's since opset 23 and ONNX Runtime's own."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from edgeprune.frontend.onnx.table import MICROSOFT, Call, operator, refuse


@operator("Attention")
def attention(call: Call) -> Any:
    """Query, key and value with heads apart or joined; past keys and soft caps are refused."""
    if call.has(4) or call.has(5) or call.has(6) or any(call.step.outputs[1:]):
        raise refuse(call, "it keeps past keys")
    if call.attr("softcap", 0.0):
        raise refuse(call, "it caps its scores")
    query, key, value = (call.tensor(i) for i in range(3))
    joined = query.dim() == 3
    if joined:
        heads, held = call.attr("q_num_heads"), call.attr("kv_num_heads")
        query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
        key, value = (t.unflatten(-1, (held, -1)).transpose(1, 2) for t in (key, value))
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (t.repeat_interleave(repeats, 1) for t in (key, value))
    result = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=call.optional(3), is_causal=bool(call.attr("is_causal", 0)),
        scale=call.attr("scale"),
    )  # fmt: skip
    return result.transpose(1, 2).flatten(2) if joined else result


@operator("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(call: Call) -> torch.Tensor:
    """Query, key and value of joined heads with an optional bias."""
    if any(call.has(i) for i in (4, 5, 6, 7)) or any(call.step.outputs[1:]):
        raise refuse(call, "it has masks or past keys")
    heads = call.attr("num_heads")
    query, key, value = (call.tensor(i) for i in range(3))
    if call.has(3):
        biases = call.tensor(3).split([query.shape[-1], key.shape[-1], value.shape[-1]])
        query, key, value = (t + b for t, b in zip((query, key, value), biases, strict=True))
    query, key, value = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    result = functional.scaled_dot_product_attention(query, key, value, scale=call.attr("scale") or None)
    return result.transpose(1, 2).flatten(2)


@operator("Attention", domain=MICROSOFT)
def attention_microsoft(call: Call) -> torch.Tensor:
    """One product for query, key and value, then attention without a mask."""
    if any(call.has(i) for i in range(3, 7)) or any(call.step.outputs[1:]):
        raise refuse(call, "it has masks or past keys")
    heads = call.attr("num_heads")
    joined = torch.matmul(call.tensor(0), call.tensor(1))
    joined = joined + call.tensor(2) if call.has(2) else joined
    widths = call.attr("qkv_hidden_sizes") or [joined.shape[-1] // 3] * 3
    query, key, value = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in joined.split(list(widths), -1))
    result = functional.scaled_dot_product_attention(
        query, key, value, is_causal=bool(call.attr("unidirectional", 0)), scale=call.attr("scale") or None
    )
    return result.transpose(1, 2).flatten(2)


@operator("RotaryEmbedding")
def rotary_embedding(call: Call) -> torch.Tensor:
    """Pairs of values turned by the angles of their positions."""
    x, cos, sin = (call.tensor(i) for i in range(3))
    joined, heads = x.dim() == 3, call.attr("num_heads", 0)
    if joined:
        x = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    if call.has(3):
        cos, sin = cos[call.tensor(3)], sin[call.tensor(3)]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    width = call.attr("rotary_embedding_dim", 0) or x.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    if call.attr("interleaved", 0):
        a, b = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
    result = torch.cat((turned, rest), -1)
    return result.transpose(1, 2).flatten(2) if joined else result
