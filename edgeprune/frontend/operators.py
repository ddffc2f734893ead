"""The operators that a program from a file may call.

Arithmetic on tensors that touches nothing else. ATen itself is not a safe namespace:
`aten.from_file` maps and creates files, `aten.save` writes them, `aten.set_` and
`aten.resize_` reach into storages. So each name is listed; what is not listed is
refused as a pickle would be. An in-place form (`relu_`) goes with its plain name.

Guarantee, held by a test: every operator that has a coupling rule is listed, so a pruned program can be
read again. For any other operator, `unlisted_operators` tells before a file is written.
"""

from __future__ import annotations

import re

import torch

_ATEN = """
abs absolute acos acosh adaptive_avg_pool1d _adaptive_avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool3d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul
addmm addmv addr adjoint affine_grid_generator alias alias_copy all alpha_dropout amax amin _aminmax
aminmax __and__ angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
argsort as_strided asin asinh _assert_scalar _assert_tensor_metadata atan atan2 atanh atleast_1d
atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm bartlett_window batch_norm bernoulli
bilinear binary_cross_entropy binary_cross_entropy_with_logits bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor blackman_window block_diag bmm broadcast_tensors broadcast_to
bucketize cartesian_prod cat cdist _cdist_forward ceil celu chain_matmul channel_shuffle cholesky_inverse
cholesky_solve chunk clamp clamp_max clamp_min clip clone col2im column_stack combinations complex concat
concatenate _conj conj _conj_physical conj_physical constant_pad_nd contiguous conv1d conv2d conv3d
_conv_depthwise2d conv_depthwise3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
_convolution convolution copy copysign corrcoef cos cosh cosine_embedding_loss cosine_similarity
count_nonzero cov cross cross_entropy_loss _ctc_loss ctc_loss cummax cummin cumprod cumsum
cumulative_trapezoid deg2rad det detach detach_copy diag diag_embed diagflat diagonal diagonal_copy
diagonal_scatter diff digamma dist div divide dot dropout dsplit dstack einsum elu embedding
_embedding_bag embedding_bag _embedding_bag_forward_only empty empty_like empty_permuted empty_strided eq
equal erf erfc erfinv _euclidean_dist exp exp2 expand expand_as expand_copy expm1 eye
feature_alpha_dropout feature_dropout _fft_c2c _fft_c2r fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift
fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn
fft_irfft fft_irfft2 fft_irfftn _fft_r2c fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn fill fix flatten flip
fliplr flipud float_power floor floor_divide fmax fmin fmod frac fractional_max_pool2d
fractional_max_pool3d frexp frobenius_norm full full_like _fused_rms_norm gather gcd ge gelu ger glu
gradient greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt
hamming_window hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hinge_embedding_loss histc
hsplit hstack huber_loss hypot i0 igamma igammac im2col imag index index_add index_copy index_fill
index_put index_reduce index_select inner instance_norm inverse is_complex is_conj is_floating_point
is_nonzero isclose isfinite isin isinf isnan isneginf isposinf isreal istft item kaiser_window kl_div kron
kthvalue l1_loss layer_norm lcm ldexp le leaky_relu lerp less less_equal lgamma lift_fresh lift_fresh_copy
linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross _linalg_det linalg_det linalg_diagonal
_linalg_eigh linalg_eigh linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex
linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_matmul linalg_matrix_exp linalg_matrix_norm
linalg_matrix_power linalg_multi_dot linalg_norm linalg_pinv linalg_qr _linalg_slogdet linalg_slogdet
linalg_solve _linalg_solve_ex linalg_solve_ex linalg_solve_triangular _linalg_svd linalg_svd
linalg_svdvals linalg_vander linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2
log_sigmoid _log_softmax log_softmax logaddexp logaddexp2 _logcumsumexp logcumsumexp logdet logical_and
logical_not logical_or logical_xor logit logspace logsumexp __lshift__ lstm lstm_cell lt mH mT masked_fill
masked_scatter masked_select _masked_softmax matmul matrix_H matrix_exp matrix_power max max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d
max_unpool3d maximum mean median meshgrid min minimum mish mm mode moveaxis movedim mse_loss msort mul
multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow narrow_copy native_batch_norm
_native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
native_channel_shuffle native_dropout native_group_norm native_layer_norm _native_multi_head_attention ne
neg negative new_empty new_empty_strided new_full new_ones new_zeros nextafter nll_loss nll_loss_forward
nll_loss_nd nonzero nonzero_numpy norm norm_except_dim not_equal nuclear_norm numpy_T one_hot ones
ones_like __or__ outer pad _pad_circular _pad_enum pad_sequence pairwise_distance pdist _pdist_forward
permute permute_copy pixel_shuffle pixel_unshuffle polar polygamma positive pow prelu _prelu_kernel prod
quantile rad2deg rand rand_like randint randint_like randn randn_like randperm range ravel real reciprocal
reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder renorm repeat repeat_interleave
replication_pad1d replication_pad2d replication_pad3d reshape _reshape_alias reshape_as _reshape_copy
resolve_conj resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round row_stack
rrelu __rshift__ rsqrt rsub _safe_softmax scalar_tensor scaled_dot_product_attention
_scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu scatter scatter_add
scatter_reduce searchsorted select select_copy select_scatter selu sgn sigmoid sign signbit silu sin sinc
sinh slice slice_copy slice_inverse slice_scatter slogdet _slow_conv2d_forward slow_conv3d
slow_conv_dilated2d slow_conv_dilated3d slow_conv_transpose2d slow_conv_transpose3d smooth_l1_loss
_softmax softmax softplus softshrink sort special_airy_ai special_bessel_j0 special_bessel_j1
special_bessel_y0 special_bessel_y1 special_chebyshev_polynomial_t special_chebyshev_polynomial_u
special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_digamma special_entr special_erf
special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammainc
special_gammaincc special_gammaln special_hermite_polynomial_h special_hermite_polynomial_he special_i0
special_i0e special_i1 special_i1e special_laguerre_polynomial_l special_legendre_polynomial_p
special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp
special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0
special_modified_bessel_k1 special_multigammaln special_ndtr special_ndtri special_polygamma special_psi
special_round special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1
special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u
special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w special_sinc special_softmax
special_spherical_bessel_j0 special_xlog1py special_xlogy special_zeta split split_copy split_with_sizes
split_with_sizes_copy sqrt square squeeze squeeze_copy _stack stack std std_mean stft sub subtract sum
sum_to_size swapaxes swapdims sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel
sym_size sym_storage_offset sym_stride t t_copy take take_along_dim tan tanh tensor_split tensordot
_thnn_fused_gru_cell _thnn_fused_lstm_cell threshold tile to _to_copy topk trace
_transform_bias_rescale_qkv transpose transpose_copy trapezoid trapz tril tril_indices _trilinear triu
triu_indices true_divide trunc type_as unbind unbind_copy unflatten unfold unfold_copy unsafe_chunk
_unsafe_index _unsafe_index_put _unsafe_masked_index unsafe_split unsafe_split_with_sizes _unsafe_view
unsqueeze unsqueeze_copy upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d
_upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_trilinear3d vander
var var_mean vdot view view_as view_as_complex view_as_complex_copy view_as_real view_as_real_copy
view_copy vsplit vstack _weight_norm _weight_norm_interface where xlogy __xor__ zero zeros zeros_like
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


def unlisted_operators(graph: torch.fx.GraphModule) -> tuple[str, ...]:
    """Operators of a graph that a file may not call, so that the file is read with `--trust-pickle` only."""
    targets = [n.target for n in graph.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    names = {f"torch.ops.{t._schema.name.replace('::', '.')}.{t._overloadname}" for t in targets}
    return tuple(sorted(name for name in names if not is_allowed(name)))
