// Frozen edges: what turns an activation into a small code.
//
// A channel's edges are float32 thresholds in increasing order, padded with +inf, and
//     code(x) = number of thresholds <= x,
// compared exactly. The atom of zero is nothing special: it is a pair of thresholds around |x| < 2^-133,
// so every code below, at or above zero follows from one definition.
//
// Quantile edges come from a range-free grid: the 65,536 cells that share the upper 16 bits of a
// float32 (sign, exponent, 7 leading mantissa bits). Where one cell holds more than a bin's
// share (more than three, if it holds fewer than 32 samples) the exact value within the cell is taken
// instead, so a channel of any offset and scale is resolved. The edges depend on the multiset of sketched
// values only, never on their order.
//
// A channel whose thresholds all lie on the grid is searched by its upper 16 bits, twice as many
// values to a vector. The codes are the same; it is only faster.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeprune/view.hpp"

namespace edgeprune {

constexpr std::size_t max_thresholds = 255;  // codes are uint8

// Largest and smallest threshold of zero's atom: x >= zero_begin and not x >= zero_end.
constexpr std::uint32_t zero_begin_bits = 0x8000ffffu;
constexpr std::uint32_t zero_end_bits = 0x00010000u;

// Upper 16 bits of a float32, made to order as the float does. Keys of -0 and +0 are -1 and 0.
inline std::int16_t key_of(std::uint32_t bits) {
    const std::uint32_t upper = bits >> 16;
    return static_cast<std::int16_t>(upper >> 15 ? upper ^ 0x7fffu : upper);
}

// Thresholds in the order in which a branch-free binary search meets them, level after level. A table
// of keys holds each threshold less one, and is compared by >, as vector units have no >= for integers.
template <class T>
struct alignas(32) SearchTable {
    T level[256];  // level l starts at 2^l - 1; unused entries are above every finite value
    T last;        // one more threshold where the count is a power of two
    std::uint32_t depth;
};

// T is float (always exact) or int16_t (keys; only where on_grid holds).
template <class T>
SearchTable<T> make_table(const float* thresholds, std::size_t count);

// Whether comparing keys gives the same codes as comparing floats.
bool on_grid(const float* thresholds, std::size_t count);

// Quantile edges for each channel from the samples listed; thresholds is (channels, bins), which give
// bins + 1 codes: one for zero, the others shared between negative and positive values by their mass
// (at least one each). Returns false if a listed value is not finite.
bool find_edges(const View& view, const std::uint32_t* rows, std::size_t row_count, std::size_t bins,
                float* thresholds, std::size_t threads);

}  // namespace edgeprune
