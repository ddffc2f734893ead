"""The operators that a program from a file may call.

Arithmetic on tensors that touches nothing else. ATen itself is not a safe namespace:
`aten.from_file` maps and creates files, `aten.save` writes them, `aten.set_` and
`aten.resize_` reach into storages. So each name is listed; what is not listed is
refused as a pickle would be. An in-place form (`relu_`) goes with its plain name.
"""

from __future__ import annotations

import re

import torch

_ATEN = """
_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_scalar _assert_tensor_metadata _cdist_forward
_convolution _fft_c2r _fft_r2c _log_softmax _native_batch_norm_legit _native_batch_norm_legit_no_training
_native_batch_norm_legit_functional _safe_softmax _scaled_dot_product_flash_attention_for_cpu
_prelu_kernel _softmax _to_copy _unsafe_view _unsafe_index _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_nearest_exact2d _weight_norm _weight_norm_interface
abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv addr
affine_grid_generator alias all alpha_dropout amax amin aminmax angle any arange arccos arcsin arctan argmax
argmin argsort as_strided asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
avg_pool3d baddbmm batch_norm bernoulli bilinear bitwise_and bitwise_left_shift bitwise_not bitwise_or
bitwise_right_shift bitwise_xor bmm broadcast_tensors broadcast_to bucketize cartesian_prod cat cdist ceil
celu chain_matmul channel_shuffle chunk clamp clamp_max clamp_min clip clone col2im column_stack concat
concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d convolution copy copysign cos cosh cosine_similarity cross cummax cummin cumprod cumsum
deg2rad detach diag diag_embed diagonal diff div divide dot dropout dstack einsum elu embedding
embedding_bag empty empty_like empty_permuted empty_strided eq erf erfc erfinv exp exp2 expand expand_as
expm1 eye feature_alpha_dropout feature_dropout fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_irfft
fft_irfft2 fft_rfft fft_rfft2 fft_rfftn fill flatten flip fliplr flipud float_power floor floor_divide fmax
fmin fmod frac frobenius_norm full full_like gather ge gelu glu greater greater_equal grid_sampler
grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt hardshrink hardsigmoid hardswish hardtanh hstack
hypot
im2col imag index index_add index_copy index_fill index_put index_select inner instance_norm is_nonzero
isclose isfinite isinf isnan item kthvalue layer_norm le leaky_relu lerp less less_equal lift_fresh
lift_fresh_copy linalg_cross linalg_matrix_norm linalg_norm linalg_vector_norm linear linspace log log10
log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not logical_or logical_xor logit logspace
logsumexp lstm lstm_cell lt mT masked_fill masked_scatter masked_select matmul max max_pool1d
max_pool1d_with_indices
max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum mean median meshgrid min
minimum mish mm moveaxis movedim mul multiply mv nan_to_num nanmean nansum narrow native_dropout
native_batch_norm native_group_norm native_layer_norm ne neg negative new_empty new_empty_strided new_full
new_ones new_zeros nonzero nonzero_numpy norm not_equal numpy_T one_hot ones ones_like outer pad permute
pixel_shuffle pixel_unshuffle polar positive pow prelu prod rad2deg rand rand_like randint randint_like randn randn_like
randperm ravel real reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder
renorm repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as
resolve_conj resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round rrelu rsqrt
rsub scalar_tensor
scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select select_scatter selu
sigmoid sign silu sin sinc sinh slice slice_scatter softmax softplus softshrink sort special_erf
special_expit square sqrt squeeze stack std std_mean sub subtract sum swapaxes swapdims sym_constrain_range
sym_constrain_range_for_size sym_numel sym_size sym_storage_offset sym_stride t take take_along_dim tan tanh
tensor_split threshold tile to topk transpose tril tril_indices triu triu_indices true_divide trunc type_as
unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
view view_as view_as_complex view_as_real view_copy vstack where zero zeros zeros_like split split_copy
split_with_sizes hsplit vsplit dsplit
__and__ __or__ __xor__ arctan2 conj count_nonzero digamma fix ger heaviside kron lgamma
linalg_householder_product linalg_inv_ex linalg_matrix_exp linalg_vecdot logcumsumexp logaddexp2 mode msort
nanmedian special_erfc special_exp2 special_expm1 special_log1p special_xlogy special_i0 tensordot vdot xlogy
"""

ATEN_NAMES = frozenset(_ATEN.split())

# Arithmetic on sizes, as torch.export writes it.
_SIZES = """
_operator.add _operator.and_ _operator.eq _operator.floordiv _operator.ge _operator.getitem _operator.gt
_operator.le _operator.lshift _operator.lt _operator.mod _operator.mul _operator.ne _operator.neg
_operator.or_ _operator.pos _operator.pow _operator.rshift _operator.sub _operator.truediv
torch.sym_float torch.sym_int torch.sym_ite torch.sym_max torch.sym_min torch.sym_not torch.sym_sqrt
math.ceil math.floor math.trunc
"""

SIZE_OPERATORS = frozenset(_SIZES.split())

_OVERLOAD = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")


def is_allowed(target: str) -> bool:
    """Whether a serialized call target is a listed operator with an overload that exists."""
    if target in SIZE_OPERATORS:
        return True
    match = _OVERLOAD.fullmatch(target)
    if match is None:
        return False
    name, overload = match.groups()
    if name not in ATEN_NAMES and name.removesuffix("_") not in ATEN_NAMES:
        return False
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and overload in packet.overloads()
