// The reduction of one short class (run_sums.hpp), written once for every instruction set.
//
// Integers throughout, so no set can change a bit. `Any` says whether a vector has a bit set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace edgeprune {

// Counters of sixteen channels: (pair of channels, code, channel of the pair), a pair's `pitch` codes apart. Half
// of them are reduced at a time, whose channels have this order:
constexpr std::size_t half_channels = 8;
constexpr std::size_t place_of(std::size_t channel) { return channel % 2 * 4 + channel / 2; }

constexpr std::size_t codes_together = 4;  // pitches are multiples
// Cells of up to this many samples are told apart by comparisons, larger ones looked up.
constexpr std::size_t small_cell = 6;

// What classes of half a group add up to, until it must be emptied: see RunSums::flush.
struct RunState {
    std::uint16_t* per_bin;  // four codes at a time: for code and channel pairs 0 and 2, then the same of 1 and 3
    std::uint32_t above[small_cell][half_channels];  // [m][place]: cells of more than m samples
    std::uint64_t beyond[half_channels];             // [place]: n ln n, as far as `above` does not tell it
};

namespace {

using Bytes = signed char __attribute__((vector_size(32)));
using Pairs = std::uint16_t __attribute__((vector_size(32)));
using Fours = std::uint32_t __attribute__((vector_size(32)));

// Vectors go by reference: by value they would be passed differently with and without AVX.
template <class Vector, class T>
inline void add_to(T* to, const Vector& x) {
    Vector sum;
    std::memcpy(&sum, to, sizeof sum);
    sum += x;
    std::memcpy(to, &sum, sizeof sum);
}

// body(constant) for 0, 1, ..., n - 1: only constant indices keep an array of vectors in registers.
template <std::size_t n, class Body>
inline void for_each_constant(Body&& body) {
    [&]<std::size_t... i>(std::index_sequence<i...>) { (body(std::integral_constant<std::size_t, i>{}), ...); }
    (std::make_index_sequence<n>{});
}

struct AnyByWords {
    static inline bool of(const Bytes& x) {
        std::uint64_t word[4];
        std::memcpy(word, &x, sizeof word);
        return (word[0] | word[1] | word[2] | word[3]) != 0;
    }
};

// counters: at most 127 each, zero afterwards. term[n], for n in 0..127, is 0 up to small_cell.
template <class Any>
void close_short_run(std::uint32_t* counters, std::size_t codes, std::size_t pitch, RunState& state,
                     const std::uint64_t* term) {
    constexpr std::size_t lanes = sizeof(Fours) / sizeof(std::uint32_t);
    Bytes above[small_cell] = {};
    std::uint16_t* per_bin = state.per_bin;
    Bytes with_large[256 / codes_together];
    std::size_t large = 0;
    for (std::size_t at = 0; at < codes; at += codes_together) {
        Fours pair[4];
        for_each_constant<4>([&](auto p) {
            constexpr Fours none{};  // stored as a vector: memset would be called, or become a slow string operation
            std::uint32_t* from = counters + (p * pitch + at) * 2;
            std::memcpy(&pair[p], from, sizeof none);
            std::memcpy(from, &none, sizeof none);
        });
        // Byte p of 32-bit lane 2 b + c is the counter of code at + b, channel c of pair p: byte i has place i % 8.
        const Bytes n = reinterpret_cast<Bytes>(pair[0] | pair[1] << 8 | pair[2] << 16 | pair[3] << 24);
        for_each_constant<small_cell>([&](auto m) { above[m] -= n > static_cast<signed char>(m); });
        add_to(per_bin + at * half_channels, reinterpret_cast<Pairs>(n) & 0xff);
        add_to(per_bin + at * half_channels + 2 * lanes, reinterpret_cast<Pairs>(n) >> 8);
        with_large[large] = n;
        large += Any::of(n > static_cast<signed char>(small_cell));
    }
    for (std::size_t i = 0; i < large; ++i) {
        std::uint8_t cell[codes_together][half_channels];
        std::memcpy(cell, &with_large[i], sizeof cell);
        for (std::size_t k = 0; k < half_channels; ++k)
            state.beyond[k] += (term[cell[0][k]] + term[cell[1][k]]) + (term[cell[2][k]] + term[cell[3][k]]);
    }
    for_each_constant<small_cell>([&](auto m) {
        std::uint64_t part[4];
        std::memcpy(part, &above[m], sizeof part);
        const std::uint64_t sum = part[0] + part[1] + part[2] + part[3];  // no byte exceeds 127
        std::uint8_t cells[half_channels];
        std::memcpy(cells, &sum, sizeof cells);
        for (std::size_t k = 0; k < half_channels; ++k) state.above[m][k] += cells[k];
    });
}

}  // namespace
}  // namespace edgeprune
