// NEON (aarch64): four floats or eight keys at a time.
//
// A level of the search is one table look-up of up to 64 bytes; wider levels take several, each of
// which gives 0 for indices outside its part, joined by OR. Only the last level of a 255-threshold
// table of floats exceeds 256 bytes and is read lane by lane.
#include <arm_neon.h>

#include "dense_kernels.hpp"
#include "kernels_table.hpp"

namespace edgeprune {
namespace {

using Key = std::int16_t;

// Bytes `index` of the first `bytes` (at most 256) bytes of a table; 64 bytes are read at a time.
template <int bytes>
uint8x16_t look_up(const void* table, uint8x16_t index) {
    const auto* from = static_cast<const std::uint8_t*>(table);
    uint8x16_t found = vqtbl4q_u8(vld1q_u8_x4(from), index);
    for (int part = 64; part < bytes; part += 64)
        found = vorrq_u8(found, vqtbl4q_u8(vld1q_u8_x4(from + part), vsubq_u8(index, vdupq_n_u8(static_cast<std::uint8_t>(part)))));
    return found;
}

template <int l>
uint32x4_t descend(const SearchTable<float>& table, float32x4_t x, uint32x4_t node) {
    const float* level = table.level + (1 << l) - 1;
    float32x4_t threshold;
    if constexpr (l < 7) {
        const uint32x4_t index = vaddq_u32(vmulq_n_u32(node, 0x04040404u), vdupq_n_u32(0x03020100u));
        threshold = vreinterpretq_f32_u8(look_up<(4 << l)>(level, vreinterpretq_u8_u32(index)));
    } else {
        float picked[4];
        std::uint32_t nodes[4];
        vst1q_u32(nodes, node);
        for (int i = 0; i < 4; ++i) picked[i] = level[nodes[i]];
        threshold = vld1q_f32(picked);
    }
    return vsubq_u32(vaddq_u32(node, node), vcgeq_f32(x, threshold));
}

template <int l>
uint16x8_t descend(const SearchTable<Key>& table, int16x8_t x, uint16x8_t node) {
    const Key* level = table.level + (1 << l) - 1;
    const uint16x8_t index = vaddq_u16(vmulq_n_u16(node, 0x0202u), vdupq_n_u16(0x0100u));
    const int16x8_t threshold = vreinterpretq_s16_u8(look_up<(2 << l)>(level, vreinterpretq_u8_u16(index)));
    return vsubq_u16(vaddq_u16(node, node), vcgtq_s16(x, threshold));
}

template <int depth, class T, class X, class Node>
Node walk(const SearchTable<T>& table, X x, Node node) {
    if constexpr (depth > 0) node = descend<0>(table, x, node);
    if constexpr (depth > 1) node = descend<1>(table, x, node);
    if constexpr (depth > 2) node = descend<2>(table, x, node);
    if constexpr (depth > 3) node = descend<3>(table, x, node);
    if constexpr (depth > 4) node = descend<4>(table, x, node);
    if constexpr (depth > 5) node = descend<5>(table, x, node);
    if constexpr (depth > 6) node = descend<6>(table, x, node);
    if constexpr (depth > 7) node = descend<7>(table, x, node);
    return node;
}

template <int depth>
uint32x4_t four(const SearchTable<float>& table, const float* at) {
    const float32x4_t x = vld1q_f32(at);
    return vsubq_u32(walk<depth>(table, x, vdupq_n_u32(0)), vcgeq_f32(x, vdupq_n_f32(table.last)));
}

// Eight codes as 16-bit lanes, in order.
template <int depth>
uint16x8_t eight(const SearchTable<float>& table, const float* x) {
    return vcombine_u16(vmovn_u32(four<depth>(table, x)), vmovn_u32(four<depth>(table, x + 4)));
}

template <int depth>
uint16x8_t eight(const SearchTable<Key>& table, const Key* at) {
    const int16x8_t x = vld1q_s16(at);
    return vsubq_u16(walk<depth>(table, x, vdupq_n_u16(0)), vcgtq_s16(x, vdupq_n_s16(table.last)));
}

template <int depth, class T>
void search_at(const SearchTable<T>& table, const T* x, std::size_t whole, std::uint8_t* code) {
    for (std::size_t i = 0; i < whole; i += 8) vst1_u8(code + i, vmovn_u16(eight<depth>(table, x + i)));
}

template <class T>
void search(const SearchTable<T>& table, const T* x, std::size_t count, std::uint8_t* code) {
    using Loop = void (*)(const SearchTable<T>&, const T*, std::size_t, std::uint8_t*);
    static constexpr Loop loops[] = {search_at<0, T>, search_at<1, T>, search_at<2, T>, search_at<3, T>, search_at<4, T>,
                                     search_at<5, T>, search_at<6, T>, search_at<7, T>, search_at<8, T>};
    const std::size_t whole = count / 8 * 8;
    loops[table.depth](table, x, whole, code);
    search_plain(table, x, whole, count, code);
}

template <Dtype dtype>
float32x4_t load4(const char* at) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(at);  // byte loads: rows may be unaligned
    if constexpr (dtype == Dtype::float32) {
        return vreinterpretq_f32_u8(vld1q_u8(bytes));
    } else if constexpr (dtype == Dtype::float64) {
        const float64x2_t low = vreinterpretq_f64_u8(vld1q_u8(bytes));
        const float64x2_t high = vreinterpretq_f64_u8(vld1q_u8(bytes + 16));
        return vcombine_f32(vcvt_f32_f64(low), vcvt_f32_f64(high));
    } else {
        const uint8x8_t bits = vld1_u8(bytes);
        if constexpr (dtype == Dtype::float16) return vcvt_f32_f16(vreinterpret_f16_u8(bits));
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(bits), 16));
    }
}

// Collects, lane by lane, whether a value had all exponent bits set.
struct FiniteCheck {
    uint32x4_t bad = vdupq_n_u32(0);
    void see(float32x4_t x) {
        const uint32x4_t exponent = vdupq_n_u32(0x7f800000u);
        bad = vorrq_u32(bad, vceqq_u32(vandq_u32(vreinterpretq_u32_f32(x), exponent), exponent));
    }
    bool good() const { return vmaxvq_u32(bad) == 0; }
};

template <Dtype dtype>
bool index_rows(const char* const* rows, const char* const* next, std::size_t count, const IndexRule* rules,
                std::size_t groups, std::uint16_t* out, std::size_t pitch) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    uint16x8_t largest = vdupq_n_u16(0);
    for (std::size_t c = 0; c < groups * group_channels; c += 8)
        for (std::size_t r = 0; r < count; ++r) {
            const char* at = rows[r] + c * item;
            __builtin_prefetch(next[r] + c * item);
            const IndexRule& rule = rules[c / group_channels];
            const std::size_t lane = c % group_channels;
            const uint16x8_t upper = vcombine_u16(vshrn_n_u32(vreinterpretq_u32_f32(load4<dtype>(at)), 16),
                                                  vshrn_n_u32(vreinterpretq_u32_f32(load4<dtype>(at + 4 * item)), 16));
            const uint16x8_t magnitude = vandq_u16(upper, vdupq_n_u16(0x7fff));
            largest = vmaxq_u16(largest, magnitude);
            const uint16x8_t shifted = vqsubq_u16(vqaddq_u16(magnitude, vld1q_u16(rule.add + lane)),
                                                  vld1q_u16(rule.subtract + lane));
            const uint16x8_t within = vmaxq_u16(shifted, vminq_u16(magnitude, vdupq_n_u16(1)));
            const uint16x8_t sign = vreinterpretq_u16_s16(vshrq_n_s16(vreinterpretq_s16_u16(upper), 15));
            const uint16x8_t negative = vandq_u16(sign, vld1q_u16(rule.negative + lane));
            vst1q_u16(out + c / group_channels * pitch + r * group_channels + lane,
                      vaddq_u16(vaddq_u16(within, negative), vld1q_u16(rule.offset + lane)));
        }
    return vmaxvq_u16(largest) < 0x7f80;
}

template <Dtype dtype>
uint16x8_t keys8(const char* at, FiniteCheck& check) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    const float32x4_t low = load4<dtype>(at), high = load4<dtype>(at + 4 * item);
    check.see(low);
    check.see(high);
    const uint16x8_t upper = vcombine_u16(vshrn_n_u32(vreinterpretq_u32_f32(low), 16),
                                          vshrn_n_u32(vreinterpretq_u32_f32(high), 16));
    const uint16x8_t sign = vreinterpretq_u16_s16(vshrq_n_s16(vreinterpretq_s16_u16(upper), 15));
    return veorq_u16(upper, vshrq_n_u16(sign, 1));
}

template <Dtype dtype>
std::size_t transpose_whole(const char* const rows[8], std::size_t width, float* out, std::size_t pitch,
                            FiniteCheck& check) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    std::size_t c = 0;
    for (; c + 4 <= width; c += 4, out += 4 * pitch)
        for (int half = 0; half < 8; half += 4) {
            float32x4_t r[4];
            for (int i = 0; i < 4; ++i) {
                r[i] = load4<dtype>(rows[half + i] + c * item);
                check.see(r[i]);
            }
            const float64x2_t even_low = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
            const float64x2_t odd_low = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
            const float64x2_t even_high = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
            const float64x2_t odd_high = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
            float* to = out + half;
            vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(even_low, even_high)));
            vst1q_f32(to + pitch, vreinterpretq_f32_f64(vtrn1q_f64(odd_low, odd_high)));
            vst1q_f32(to + 2 * pitch, vreinterpretq_f32_f64(vtrn2q_f64(even_low, even_high)));
            vst1q_f32(to + 3 * pitch, vreinterpretq_f32_f64(vtrn2q_f64(odd_low, odd_high)));
        }
    return c;
}

template <Dtype dtype>
std::size_t transpose_whole(const char* const rows[8], std::size_t width, Key* out, std::size_t pitch,
                            FiniteCheck& check) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    std::size_t c = 0;
    for (; c + 8 <= width; c += 8, out += 8 * pitch) {
        uint16x8_t r[8];
        for (int i = 0; i < 8; ++i) r[i] = keys8<dtype>(rows[i] + c * item, check);
        uint32x4_t pairs[8];  // pairs[2i], pairs[2i + 1]: even and odd columns of rows 2i, 2i + 1
        for (int i = 0; i < 4; ++i) {
            pairs[2 * i] = vreinterpretq_u32_u16(vtrn1q_u16(r[2 * i], r[2 * i + 1]));
            pairs[2 * i + 1] = vreinterpretq_u32_u16(vtrn2q_u16(r[2 * i], r[2 * i + 1]));
        }
        for (std::size_t odd = 0; odd < 2; ++odd) {
            const uint64x2_t low_near = vreinterpretq_u64_u32(vtrn1q_u32(pairs[odd], pairs[odd + 2]));
            const uint64x2_t low_far = vreinterpretq_u64_u32(vtrn2q_u32(pairs[odd], pairs[odd + 2]));
            const uint64x2_t high_near = vreinterpretq_u64_u32(vtrn1q_u32(pairs[odd + 4], pairs[odd + 6]));
            const uint64x2_t high_far = vreinterpretq_u64_u32(vtrn2q_u32(pairs[odd + 4], pairs[odd + 6]));
            vst1q_s16(out + odd * pitch, vreinterpretq_s16_u64(vtrn1q_u64(low_near, high_near)));
            vst1q_s16(out + (odd + 2) * pitch, vreinterpretq_s16_u64(vtrn1q_u64(low_far, high_far)));
            vst1q_s16(out + (odd + 4) * pitch, vreinterpretq_s16_u64(vtrn2q_u64(low_near, high_near)));
            vst1q_s16(out + (odd + 6) * pitch, vreinterpretq_s16_u64(vtrn2q_u64(low_far, high_far)));
        }
    }
    return c;
}

template <Dtype dtype, class T>
bool transpose_eight(const char* const rows[8], std::size_t width, T* out, std::size_t pitch) {
    FiniteCheck check;
    const std::size_t done = transpose_whole<dtype>(rows, width, out, pitch, check);
    return check.good() & transpose_plain<dtype, T>(rows, done, width, out, pitch);
}

template <Dtype dtype>
bool convert(const char* from, std::size_t count, float* out) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    FiniteCheck check;
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const float32x4_t x = load4<dtype>(from + i * item);
        check.see(x);
        vst1q_f32(out + i, x);
    }
    return check.good() & convert_plain<dtype, float>(from, i, count, out);
}

template <Dtype dtype>
bool convert(const char* from, std::size_t count, Key* out) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    FiniteCheck check;
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) vst1q_s16(out + i, vreinterpretq_s16_u16(keys8<dtype>(from + i * item, check)));
    return check.good() & convert_plain<dtype, Key>(from, i, count, out);
}

struct TwoDoubles {
    using Vector = float64x2_t;
    static constexpr std::size_t lanes = 2;
    static Vector load(const double* x) { return vld1q_f64(x); }
    static void store(double* x, Vector v) { vst1q_f64(x, v); }
    static Vector all(double x) { return vdupq_n_f64(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f64(c, a, b); }
};

template <class T>
constexpr TileKernels<T> tile_kernels{
    {transpose_eight<Dtype::float32, T>, transpose_eight<Dtype::float64, T>, transpose_eight<Dtype::float16, T>,
     transpose_eight<Dtype::bfloat16, T>},
    {convert<Dtype::float32>, convert<Dtype::float64>, convert<Dtype::float16>, convert<Dtype::bfloat16>},
    search<T>};

}  // namespace

const Kernels neon_kernels{"neon", tile_kernels<float>, tile_kernels<Key>,
                           {index_rows<Dtype::float32>, index_rows<Dtype::float64>, index_rows<Dtype::float16>,
                            index_rows<Dtype::bfloat16>},
                           close_short_run<AnyByWords>, product_tile<TwoDoubles>,
                           add_scaled<TwoDoubles>};

}  // namespace edgeprune
