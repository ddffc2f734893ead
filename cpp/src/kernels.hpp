// The inner loops that exist once per instruction set, chosen at run time.
//
// Guarantee: all sets give the same bits. They only compare, count and copy, or use single
// operations that IEEE 754 rounds correctly, one accumulator per result, in sample order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "edgeprune/edges.hpp"
#include "lookup.hpp"
#include "run_kernels.hpp"

namespace edgeprune {

constexpr std::size_t dtype_count = 4;

// out[c * pitch + i] = element c of rows[i], as float32 or as its key; false where any of them is
// not finite.
template <class T>
using TransposeEight = bool (*)(const char* const rows[8], std::size_t width, T* out, std::size_t pitch);
// out[i] = element i, as float32 or as its key; false where any of them is not finite.
template <class T>
using Convert = bool (*)(const char* from, std::size_t count, T* out);

// out[g * pitch + r * 16 + lane] = the index (lookup.hpp) of element 16 g + lane of rows[r], whose elements
// lie together; false where any of them is not finite. `next` are the rows after them, for prefetching: they lie
// on other pages, where no hardware prefetch follows. All rows advance together, which keeps memory busiest.
using IndexRows = bool (*)(const char* const* rows, const char* const* next, std::size_t count,
                           const IndexRule* rules, std::size_t groups, std::uint16_t* out, std::size_t pitch);

// The loops over one kind of tile.
template <class T>
struct TileKernels {
    TransposeEight<T> transpose_eight[dtype_count];  // by Dtype; elements of a row lie together
    Convert<T> convert[dtype_count];                 // by Dtype; elements lie together
    // code[i] = number of thresholds <= x[i]
    void (*search)(const SearchTable<T>& table, const T* x, std::size_t count, std::uint8_t* code);
};

struct Kernels {
    const char* name;
    TileKernels<float> floats;
    TileKernels<std::int16_t> keys;
    IndexRows index_rows[dtype_count];  // by Dtype
    // See run_kernels.hpp.
    void (*close_short_run)(std::uint32_t* counters, std::size_t codes, std::size_t pitch, RunState& state,
                            const std::uint64_t* term);
    // See dense_kernels.hpp.
    void (*product_tile)(const double* left, const double* right, std::size_t pitch, std::size_t terms,
                         double (*out)[8]);
    void (*add_scaled)(double a, const double* x, double* y, std::size_t count);

    template <class T>
    const TileKernels<T>& tile() const {
        if constexpr (std::is_same_v<T, float>) return floats;
        else return keys;
    }
};

const Kernels& kernels();

}  // namespace edgeprune
