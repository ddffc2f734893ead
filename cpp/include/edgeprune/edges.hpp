// Frozen edges: what turns an activation into a small code.
//
// A channel's edges are float32 thresholds in increasing order, padded with +inf, and
//     code(x) = number of thresholds <= x,
// compared exactly. The atom of zero is nothing special: it is the pair of thresholds 0 and the
// smallest positive float, so every code below, at or above it follows from one definition.
//
// Quantile edges come from a range-free grid: the 65,536 cells that share the upper 16 bits of a
// float32 (sign, exponent, 7 leading mantissa bits). Where one cell holds more than a quarter of a
// bin's share the exact value within the cell is taken instead, so a channel of any offset and scale
// is resolved. The edges depend on the multiset of sketched values only, never on their order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/view.hpp"

namespace edgeprune {

constexpr std::size_t max_thresholds = 255;  // codes are uint8

// Thresholds in the order in which a branch-free binary search meets them, level after level.
struct alignas(32) SearchTable {
    float level[256];    // level l starts at 2^l - 1; unused entries are +inf
    float last;          // one more threshold where the count is a power of two
    std::uint32_t depth;
    bool has_last;

    SearchTable() = default;
    SearchTable(const float* thresholds, std::size_t count);
};

// bins thresholds that give bins + 1 codes: one for exact zero, the others shared between negative
// and positive values by their mass (at least one each). Values: any order, all finite.
class QuantileEdges {
public:
    explicit QuantileEdges(std::size_t bins);
    void find(const float* values, std::size_t count, float* thresholds);

private:
    void half(std::vector<std::uint32_t>& keys, std::size_t cells, std::vector<std::uint32_t>& picks);

    std::size_t bins_;
    std::vector<std::uint32_t> negative_, positive_, picks_, members_;
    std::vector<std::uint32_t> counts_;
};

// Quantile edges for each channel from the samples listed; thresholds is (channels, bins).
// Returns false if a listed value is not finite.
bool find_edges(const View& view, const std::uint32_t* rows, std::size_t row_count, std::size_t bins,
                float* thresholds, std::size_t threads);

}  // namespace edgeprune
