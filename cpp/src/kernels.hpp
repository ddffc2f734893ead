// The inner loops that exist once per instruction set, chosen at run time.
//
// Guarantee: all sets give the same bits. They only compare, count and copy, or use single
// operations that IEEE 754 rounds correctly, one accumulator per result, in sample order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeprune/edges.hpp"

namespace edgeprune {

struct Kernels {
    const char* name;
    bool (*all_finite)(const float* x, std::size_t count);
    // code[i] = number of thresholds <= x[i]
    void (*search)(const SearchTable& table, const float* x, std::size_t count, std::uint8_t* code);
    // index[i] = base[i] + number of thresholds <= x[i]
    void (*search_index)(const SearchTable& table, const float* x, std::size_t count,
                         const std::uint32_t* base, std::uint32_t* index);
};

const Kernels& kernels();

}  // namespace edgeprune
