// One table of inner loops per instruction set that this build contains.
#pragma once

#include "kernels.hpp"

namespace edgeprune {

// The definition of a code, and what the vector loops use for their last few values.
inline std::uint32_t code_of(const SearchTable& table, float x) {
    std::uint32_t node = 0;
    for (std::uint32_t l = 0; l < table.depth; ++l)
        node = 2 * node + static_cast<std::uint32_t>(x >= table.level[(1u << l) - 1 + node]);
    return node + static_cast<std::uint32_t>(x >= table.last);
}

extern const Kernels scalar_kernels;
#if defined(EDGEPRUNE_AVX2)
extern const Kernels avx2_kernels;
#endif
#if defined(EDGEPRUNE_NEON)
extern const Kernels neon_kernels;
#endif

}  // namespace edgeprune
