// AVX2: eight floats or sixteen keys at a time.
//
// The binary search keeps a level's thresholds in registers, in tables of as many as one in-lane
// shuffle can address (4 floats, 8 keys). The shuffle picks by the lower bits of the node reached, a
// tree of blends by the comparisons of the first levels. Whole-register permutations would need no
// blends but take several times as long.
#include <immintrin.h>

#include "dense_kernels.hpp"
#include "kernels_table.hpp"

// The compiler leaves these as calls otherwise, and every call reloads the thresholds.
#define ALWAYS_INLINE __attribute__((always_inline)) inline

namespace edgeprune {
namespace {

using Key = std::int16_t;

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
    using Vector = __m256;
    static constexpr int per_table_log2 = 2;
    static ALWAYS_INLINE Vector load(const float* x) { return _mm256_loadu_ps(x); }
    static ALWAYS_INLINE Vector all(float x) { return _mm256_set1_ps(x); }
    // Every bit set where x reaches the threshold.
    static ALWAYS_INLINE __m256i reaches(Vector x, Vector threshold) {
        return _mm256_castps_si256(_mm256_cmp_ps(x, threshold, _CMP_GE_OQ));
    }
    static ALWAYS_INLINE Vector choose(Vector low, Vector high, __m256i mask) {
        return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(mask));
    }
    static ALWAYS_INLINE Vector pick(const float* table, __m256i node) {
        return _mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(table)), node);
    }
    static ALWAYS_INLINE __m256i twice(__m256i node) { return _mm256_add_epi32(node, node); }
    static ALWAYS_INLINE __m256i less(__m256i node, __m256i mask) { return _mm256_sub_epi32(node, mask); }
};

template <>
struct Lanes<Key> {
    using Vector = __m256i;
    static constexpr int per_table_log2 = 3;
    static ALWAYS_INLINE Vector load(const Key* x) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    }
    static ALWAYS_INLINE Vector all(Key x) { return _mm256_set1_epi16(x); }
    static ALWAYS_INLINE __m256i reaches(Vector x, Vector threshold) {  // the table holds t - 1
        return _mm256_cmpgt_epi16(x, threshold);
    }
    static ALWAYS_INLINE Vector choose(Vector low, Vector high, __m256i mask) {
        return _mm256_blendv_epi8(low, high, mask);
    }
    // Nodes are kept in both bytes of a lane, so bytes 2n and 2n + 1 are one addition away.
    static ALWAYS_INLINE Vector pick(const Key* table, __m256i node) {
        const __m256i eight = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
        // Below bit 4 it is the entry within the table; a set top bit, from node 64 on, would give zero.
        const __m256i byte = _mm256_and_si256(_mm256_add_epi8(node, node), _mm256_set1_epi8(0x0e));
        return _mm256_shuffle_epi8(eight, _mm256_or_si256(byte, _mm256_set1_epi16(0x0100)));
    }
    static ALWAYS_INLINE __m256i twice(__m256i node) { return _mm256_add_epi8(node, node); }
    static ALWAYS_INLINE __m256i less(__m256i node, __m256i mask) { return _mm256_sub_epi8(node, mask); }
};

// Where the search of one vector stands: the node reached, and the comparison made at each level.
template <class T>
struct Path {
    typename Lanes<T>::Vector x;
    __m256i node;
    __m256i above[8];
};

// The entry of a level at the path's node, out of 2^up tables chosen by comparisons first, first + 1, ...
template <int up, int first, class T>
ALWAYS_INLINE typename Lanes<T>::Vector entry(const T* entries, const Path<T>& path) {
    if constexpr (up == 0) {
        return Lanes<T>::pick(entries, path.node);
    } else {
        constexpr int half = 1 << (up - 1 + Lanes<T>::per_table_log2);
        return Lanes<T>::choose(entry<up - 1, first + 1>(entries, path), entry<up - 1, first + 1>(entries + half, path),
                                path.above[first]);
    }
}

template <int l, class T>
ALWAYS_INLINE void descend(const SearchTable<T>& table, Path<T>& path) {
    using L = Lanes<T>;
    const T* level = table.level + (1 << l) - 1;
    typename L::Vector threshold;
    if constexpr (l == 0) {
        threshold = L::all(level[0]);
    } else if constexpr (l == 1) {
        threshold = L::choose(L::all(level[0]), L::all(level[1]), path.above[0]);
    } else {
        constexpr int up = l > L::per_table_log2 ? l - L::per_table_log2 : 0;
        threshold = entry<up, 0>(level, path);
    }
    path.above[l] = L::reaches(path.x, threshold);
    path.node = L::less(L::twice(path.node), path.above[l]);
}

template <int depth, class T>
ALWAYS_INLINE __m256i codes_of(const SearchTable<T>& table, typename Lanes<T>::Vector x) {
    Path<T> path;
    path.x = x;
    path.node = _mm256_setzero_si256();
    if constexpr (depth > 0) descend<0>(table, path);
    if constexpr (depth > 1) descend<1>(table, path);
    if constexpr (depth > 2) descend<2>(table, path);
    if constexpr (depth > 3) descend<3>(table, path);
    if constexpr (depth > 4) descend<4>(table, path);
    if constexpr (depth > 5) descend<5>(table, path);
    if constexpr (depth > 6) descend<6>(table, path);
    if constexpr (depth > 7) descend<7>(table, path);
    return Lanes<T>::less(path.node, Lanes<T>::reaches(x, Lanes<T>::all(table.last)));
}

// Sixteen codes as 16-bit lanes, in order.
template <int depth>
ALWAYS_INLINE __m256i sixteen(const SearchTable<float>& table, const float* x) {
    const __m256i low = codes_of<depth>(table, Lanes<float>::load(x));
    const __m256i high = codes_of<depth>(table, Lanes<float>::load(x + 8));
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
}

template <int depth>
ALWAYS_INLINE __m256i sixteen(const SearchTable<Key>& table, const Key* x) {
    return _mm256_and_si256(codes_of<depth>(table, Lanes<Key>::load(x)), _mm256_set1_epi16(0x00ff));
}

template <int depth, class T>
void search_at(const SearchTable<T>& table, const T* x, std::size_t whole, std::uint8_t* code) {
    for (std::size_t i = 0; i < whole; i += 32) {
        const __m256i bytes = _mm256_packus_epi16(sixteen<depth>(table, x + i), sixteen<depth>(table, x + i + 16));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(code + i), _mm256_permute4x64_epi64(bytes, 0xd8));
    }
}

template <class T>
void search(const SearchTable<T>& table, const T* x, std::size_t count, std::uint8_t* code) {
    using Loop = void (*)(const SearchTable<T>&, const T*, std::size_t, std::uint8_t*);
    static constexpr Loop loops[] = {search_at<0, T>, search_at<1, T>, search_at<2, T>, search_at<3, T>, search_at<4, T>,
                                     search_at<5, T>, search_at<6, T>, search_at<7, T>, search_at<8, T>};
    const std::size_t whole = count / 32 * 32;
    loops[table.depth](table, x, whole, code);
    search_plain(table, x, whole, count, code);
}

template <Dtype dtype>
ALWAYS_INLINE __m256 load8(const char* at) {
    if constexpr (dtype == Dtype::float32) {
        return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
    } else if constexpr (dtype == Dtype::float64) {
        const double* from = reinterpret_cast<const double*>(at);
        return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(from + 4)), _mm256_cvtpd_ps(_mm256_loadu_pd(from)));
    } else {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        if constexpr (dtype == Dtype::float16) return _mm256_cvtph_ps(bits);
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
}

// Collects, lane by lane, whether a value had all exponent bits set.
struct FiniteCheck {
    __m256i bad = _mm256_setzero_si256();
    ALWAYS_INLINE void see(__m256 x) {
        const __m256i exponent = _mm256_set1_epi32(0x7f800000);
        const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), exponent);
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(bits, exponent));
    }
    ALWAYS_INLINE void see_upper(__m256i upper) {
        const __m256i exponent = _mm256_set1_epi16(0x7f80);
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi16(_mm256_and_si256(upper, exponent), exponent));
    }
    bool good() const { return _mm256_testz_si256(bad, bad) != 0; }
};

ALWAYS_INLINE __m256i lanes16(const std::uint16_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
}

template <Dtype dtype>
bool index_rows(const char* const* rows, const char* const* next, std::size_t count, const IndexRule* rules,
                std::size_t groups, std::uint16_t* out, std::size_t pitch) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    __m256i largest = _mm256_setzero_si256();
    for (std::size_t g = 0; g < groups; ++g)
        for (std::size_t r = 0; r < count; ++r) {
            const char* at = rows[r] + g * group_channels * item;
            for (std::size_t line = 0; line < group_channels * item; line += 64)
                __builtin_prefetch(next[r] + g * group_channels * item + line);
            const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(load8<dtype>(at)), 16);
            const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(load8<dtype>(at + 8 * item)), 16);
            const __m256i upper = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
            const __m256i magnitude = _mm256_and_si256(upper, _mm256_set1_epi16(0x7fff));
            largest = _mm256_max_epu16(largest, magnitude);
            const __m256i shifted = _mm256_subs_epu16(_mm256_adds_epu16(magnitude, lanes16(rules[g].add)),
                                                      lanes16(rules[g].subtract));
            const __m256i within = _mm256_max_epu16(shifted, _mm256_min_epu16(magnitude, _mm256_set1_epi16(1)));
            const __m256i sign = _mm256_and_si256(_mm256_srai_epi16(upper, 15), lanes16(rules[g].negative));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + g * pitch + r * group_channels),
                                _mm256_add_epi16(_mm256_add_epi16(within, sign), lanes16(rules[g].offset)));
        }
    const __m256i beyond = _mm256_cmpgt_epi16(largest, _mm256_set1_epi16(0x7f7f));
    return _mm256_testz_si256(beyond, beyond) != 0;
}

// Keys of sixteen floats; `pack` leaves them as low 0-3, high 0-3, low 4-7, high 4-7.
ALWAYS_INLINE __m256i packed_keys(__m256 low, __m256 high, FiniteCheck& check) {
    const __m256i upper = _mm256_packus_epi32(_mm256_srli_epi32(_mm256_castps_si256(low), 16),
                                              _mm256_srli_epi32(_mm256_castps_si256(high), 16));
    check.see_upper(upper);
    return _mm256_xor_si256(upper, _mm256_srli_epi16(_mm256_srai_epi16(upper, 15), 1));
}

template <Dtype dtype>
std::size_t transpose_whole(const char* const rows[8], std::size_t width, float* out, std::size_t pitch,
                            FiniteCheck& check) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    std::size_t c = 0;
    for (; c + 8 <= width; c += 8, out += 8 * pitch) {
        __m256 r[8], t[8];
        for (int i = 0; i < 8; ++i) {
            r[i] = load8<dtype>(rows[i] + c * item);
            check.see(r[i]);
        }
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for (int i = 0; i < 2; ++i) {  // columns c and c + 4 of rows 4i..4i+3
            r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
            r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
            r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
            r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
        }
        for (int i = 0; i < 4; ++i) {
            const std::size_t column = static_cast<std::size_t>(i);
            _mm256_storeu_ps(out + column * pitch, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
            _mm256_storeu_ps(out + (column + 4) * pitch, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
        }
    }
    return c;
}

template <Dtype dtype>
std::size_t transpose_whole(const char* const rows[8], std::size_t width, Key* out, std::size_t pitch,
                            FiniteCheck& check) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    std::size_t c = 0;
    for (; c + 16 <= width; c += 16, out += 16 * pitch) {
        __m256i r[8], t[8];
        for (int i = 0; i < 8; ++i) {
            const char* at = rows[i] + c * item;
            r[i] = packed_keys(load8<dtype>(at), load8<dtype>(at + 8 * item), check);
        }
        for (int i = 0; i < 4; ++i) {
            t[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            r[4 * i] = _mm256_unpacklo_epi32(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm256_unpackhi_epi32(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm256_unpacklo_epi32(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm256_unpackhi_epi32(t[4 * i + 1], t[4 * i + 3]);
        }
        for (std::size_t i = 0; i < 4; ++i) {  // r[i], r[i + 4]: two columns in the lower lane, four further on above
            const __m256i even = _mm256_unpacklo_epi64(r[i], r[i + 4]);
            const __m256i odd = _mm256_unpackhi_epi64(r[i], r[i + 4]);
            Key* to = out + ((i & 1) * 2 + (i >> 1) * 8) * pitch;
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(even));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + pitch), _mm256_castsi256_si128(odd));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 4 * pitch), _mm256_extracti128_si256(even, 1));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 5 * pitch), _mm256_extracti128_si256(odd, 1));
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
    for (; i + 8 <= count; i += 8) {
        const __m256 x = load8<dtype>(from + i * item);
        check.see(x);
        _mm256_storeu_ps(out + i, x);
    }
    return check.good() & convert_plain<dtype, float>(from, i, count, out);
}

template <Dtype dtype>
bool convert(const char* from, std::size_t count, Key* out) {
    constexpr std::size_t item = sizeof(typename Element<dtype>::Stored);
    FiniteCheck check;
    std::size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const char* at = from + i * item;
        const __m256i keys = packed_keys(load8<dtype>(at), load8<dtype>(at + 8 * item), check);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_permute4x64_epi64(keys, 0xd8));
    }
    return check.good() & convert_plain<dtype, Key>(from, i, count, out);
}

struct AnyByTest {
    static ALWAYS_INLINE bool of(const Bytes& x) {
        const __m256i bits = reinterpret_cast<__m256i>(x);
        return _mm256_testz_si256(bits, bits) == 0;
    }
};

struct FourDoubles {
    using Vector = __m256d;
    static constexpr std::size_t lanes = 4;
    static ALWAYS_INLINE Vector load(const double* x) { return _mm256_loadu_pd(x); }
    static ALWAYS_INLINE void store(double* x, Vector v) { _mm256_storeu_pd(x, v); }
    static ALWAYS_INLINE Vector all(double x) { return _mm256_set1_pd(x); }
    static ALWAYS_INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
};

template <class T>
constexpr TileKernels<T> tile_kernels{
    {transpose_eight<Dtype::float32, T>, transpose_eight<Dtype::float64, T>, transpose_eight<Dtype::float16, T>,
     transpose_eight<Dtype::bfloat16, T>},
    {convert<Dtype::float32>, convert<Dtype::float64>, convert<Dtype::float16>, convert<Dtype::bfloat16>},
    search<T>};

}  // namespace

const Kernels avx2_kernels{"avx2", tile_kernels<float>, tile_kernels<Key>,
                           {index_rows<Dtype::float32>, index_rows<Dtype::float64>, index_rows<Dtype::float16>,
                            index_rows<Dtype::bfloat16>},
                           close_short_run<AnyByTest>, product_tile<FourDoubles>, add_scaled<FourDoubles>};

}  // namespace edgeprune
