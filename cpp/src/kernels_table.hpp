// One table of inner loops per instruction set that this build contains, and the plain code that
// defines each of them; the vector loops use it for their last few values.
#pragma once

#include "element.hpp"
#include "kernels.hpp"

namespace edgeprune {

template <class T>
T tile_entry(float x) {
    if constexpr (std::is_same_v<T, float>) return x;
    else return key_of(std::bit_cast<std::uint32_t>(x));
}

inline std::uint32_t reaches(float x, float threshold) { return x >= threshold; }
inline std::uint32_t reaches(std::int16_t x, std::int16_t threshold) { return x > threshold; }

template <class T>
std::uint32_t code_of(const SearchTable<T>& table, T x) {
    std::uint32_t node = 0;
    for (std::uint32_t l = 0; l < table.depth; ++l)
        node = 2 * node + reaches(x, table.level[(1u << l) - 1 + node]);
    return node + reaches(x, table.last);
}

template <Dtype dtype, class T>
bool transpose_plain(const char* const rows[8], std::size_t begin, std::size_t width, T* out, std::size_t pitch) {
    bool finite = true;
    for (std::size_t c = begin; c < width; ++c)
        for (std::size_t i = 0; i < 8; ++i) {
            const float x = Element<dtype>::load(rows[i] + c * sizeof(typename Element<dtype>::Stored));
            finite &= is_finite(x);
            out[c * pitch + i] = tile_entry<T>(x);
        }
    return finite;
}

template <Dtype dtype, class T>
bool convert_plain(const char* from, std::size_t begin, std::size_t count, T* out) {
    bool finite = true;
    for (std::size_t i = begin; i < count; ++i) {
        const float x = Element<dtype>::load(from + i * sizeof(typename Element<dtype>::Stored));
        finite &= is_finite(x);
        out[i] = tile_entry<T>(x);
    }
    return finite;
}

template <class T>
void search_plain(const SearchTable<T>& table, const T* x, std::size_t begin, std::size_t count, std::uint8_t* code) {
    for (std::size_t i = begin; i < count; ++i) code[i] = static_cast<std::uint8_t>(code_of(table, x[i]));
}

extern const Kernels scalar_kernels;
#if defined(EDGEPRUNE_AVX2)
extern const Kernels avx2_kernels;
#endif
#if defined(EDGEPRUNE_NEON)
extern const Kernels neon_kernels;
#endif

}  // namespace edgeprune
