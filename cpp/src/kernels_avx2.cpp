// AVX2: eight values at a time.
//
// The binary search keeps its thresholds in registers: a level of up to eight is one permutation
// indexed by the nodes reached so far, a wider level is a blend of several. Only the last level of
// a 255-threshold table gathers from memory.
#include <immintrin.h>

#include "kernels_table.hpp"

namespace edgeprune {
namespace {

template <int bit>
__m256 choose(__m256 low, __m256 high, __m256i node) {
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(node, 31 - bit)));
}

__m256 pick(const float* entries, __m256i node) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(entries), node);
}

// Thresholds of level l at the given nodes.
template <int l>
__m256 threshold_at(const float* level, __m256i node) {
    if constexpr (l <= 3) {
        return pick(level, node);
    } else if constexpr (l <= 6) {
        constexpr int half = 1 << (l - 1);
        if constexpr (l == 4) {
            return choose<3>(pick(level, node), pick(level + half, node), node);
        } else {
            return choose<l - 1>(threshold_at<l - 1>(level, node), threshold_at<l - 1>(level + half, node), node);
        }
    } else {
        return _mm256_i32gather_ps(level, node, 4);
    }
}

template <int l>
__m256i descend(const SearchTable& table, __m256 x, __m256i node) {
    const __m256 threshold = threshold_at<l>(table.level + (1 << l) - 1, node);
    const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(x, threshold, _CMP_GE_OQ));
    return _mm256_sub_epi32(_mm256_add_epi32(node, node), above);
}

template <int depth>
__m256i code8(const SearchTable& table, __m256 x) {
    __m256i node = _mm256_setzero_si256();
    if constexpr (depth > 0) node = descend<0>(table, x, node);
    if constexpr (depth > 1) node = descend<1>(table, x, node);
    if constexpr (depth > 2) node = descend<2>(table, x, node);
    if constexpr (depth > 3) node = descend<3>(table, x, node);
    if constexpr (depth > 4) node = descend<4>(table, x, node);
    if constexpr (depth > 5) node = descend<5>(table, x, node);
    if constexpr (depth > 6) node = descend<6>(table, x, node);
    if constexpr (depth > 7) node = descend<7>(table, x, node);
    const __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(table.last), _CMP_GE_OQ);
    return _mm256_sub_epi32(node, _mm256_castps_si256(above));
}

template <int depth>
void search_at(const SearchTable& table, const float* x, std::size_t count, std::uint8_t* code) {
    std::size_t i = 0;
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (; i + 32 <= count; i += 32) {
        const __m256i a = code8<depth>(table, _mm256_loadu_ps(x + i));
        const __m256i b = code8<depth>(table, _mm256_loadu_ps(x + i + 8));
        const __m256i c = code8<depth>(table, _mm256_loadu_ps(x + i + 16));
        const __m256i d = code8<depth>(table, _mm256_loadu_ps(x + i + 24));
        const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(code + i), _mm256_permutevar8x32_epi32(bytes, order));
    }
    for (; i < count; ++i) code[i] = static_cast<std::uint8_t>(code_of(table, x[i]));
}

template <int depth>
void search_index_at(const SearchTable& table, const float* x, std::size_t count, const std::uint32_t* base,
                     std::uint32_t* index) {
    std::size_t i = 0;
    for (; i + 16 <= count; i += 16) {  // two chains hide each other's latency
        const __m256i a = code8<depth>(table, _mm256_loadu_ps(x + i));
        const __m256i b = code8<depth>(table, _mm256_loadu_ps(x + i + 8));
        const __m256i base_a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(base + i));
        const __m256i base_b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(base + i + 8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(index + i), _mm256_add_epi32(a, base_a));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(index + i + 8), _mm256_add_epi32(b, base_b));
    }
    for (; i < count; ++i) index[i] = base[i] + code_of(table, x[i]);
}

bool all_finite(const float* x, std::size_t count) {
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256i bad = _mm256_setzero_si256();
    std::size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(_mm256_and_si256(bits, exponent), exponent));
    }
    return _mm256_testz_si256(bad, bad) && scalar_kernels.all_finite(x + i, count - i);
}

void search(const SearchTable& table, const float* x, std::size_t count, std::uint8_t* code) {
    using Loop = void (*)(const SearchTable&, const float*, std::size_t, std::uint8_t*);
    static constexpr Loop loops[] = {search_at<0>, search_at<1>, search_at<2>, search_at<3>, search_at<4>,
                                     search_at<5>, search_at<6>, search_at<7>, search_at<8>};
    loops[table.depth](table, x, count, code);
}

void search_index(const SearchTable& table, const float* x, std::size_t count, const std::uint32_t* base,
                  std::uint32_t* index) {
    using Loop = void (*)(const SearchTable&, const float*, std::size_t, const std::uint32_t*, std::uint32_t*);
    static constexpr Loop loops[] = {search_index_at<0>, search_index_at<1>, search_index_at<2>,
                                     search_index_at<3>, search_index_at<4>, search_index_at<5>,
                                     search_index_at<6>, search_index_at<7>, search_index_at<8>};
    loops[table.depth](table, x, count, base, index);
}

}  // namespace

const Kernels avx2_kernels{"avx2", all_finite, search, search_index};

}  // namespace edgeprune
