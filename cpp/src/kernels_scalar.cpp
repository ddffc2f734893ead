// The plain loops: the definition that every instruction set must match bit for bit.
#include <bit>

#include "kernels_table.hpp"

namespace edgeprune {
namespace {

bool all_finite(const float* x, std::size_t count) {
    std::uint32_t bad = 0;
    for (std::size_t i = 0; i < count; ++i)
        bad |= static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u);
    return bad == 0;
}

void search(const SearchTable& table, const float* x, std::size_t count, std::uint8_t* code) {
    for (std::size_t i = 0; i < count; ++i) code[i] = static_cast<std::uint8_t>(code_of(table, x[i]));
}

void search_index(const SearchTable& table, const float* x, std::size_t count, const std::uint32_t* base,
                  std::uint32_t* index) {
    for (std::size_t i = 0; i < count; ++i) index[i] = base[i] + code_of(table, x[i]);
}

}  // namespace

const Kernels scalar_kernels{"scalar", all_finite, search, search_index};

}  // namespace edgeprune
