// Codes by one look-up: sixteen neighbouring channels whose thresholds lie on the grid of keys.
//
// A value's upper 16 bits (sign, exponent, seven mantissa bits) decide its code (edges.hpp). Between
// the smallest and the largest magnitude at which a channel's code changes lie few of the 65,536
// cells (seven octaves, 900 cells, for a normal variable and 64 bins), so magnitudes are shifted and
// clamped to them and sixteen channels share one table of 64 KB, of which little is ever touched.
//
//     index 0: zero    1: below every change    2 ...: cell by cell    last: at the largest and above
//
// and negative values the same again, `negative` further on. A channel without room is left out
// (`holds`): the caller must search its codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgeprune {

constexpr std::size_t group_channels = 16;

// What turns upper 16 bits into an index, lane by lane; sums and differences saturate:
//     max((m + add) - subtract, min(m, 1)) + (negative where the sign bit is set) + offset
struct alignas(32) IndexRule {
    std::uint16_t add[group_channels];
    std::uint16_t subtract[group_channels];
    std::uint16_t negative[group_channels];
    std::uint16_t offset[group_channels];
};

inline std::uint16_t index_of(const IndexRule& rule, std::size_t lane, std::uint16_t upper) {
    const std::uint32_t magnitude = upper & 0x7fffu;
    const std::uint32_t high = magnitude + rule.add[lane] > 0xffffu ? 0xffffu : magnitude + rule.add[lane];
    const std::uint32_t shifted = high > rule.subtract[lane] ? high - rule.subtract[lane] : 0;
    const std::uint32_t least = magnitude != 0;
    const std::uint32_t within = shifted > least ? shifted : least;
    return static_cast<std::uint16_t>(within + (upper >> 15 ? rule.negative[lane] : 0) + rule.offset[lane]);
}

class GroupLookup {
public:
    GroupLookup() : codes_(1 << 16) {}

    // thresholds (width, count); missing channels and those left out have code 0 throughout.
    void build(const float* thresholds, std::size_t count, std::size_t width);

    const IndexRule& rule() const { return rule_; }
    const std::uint8_t* codes() const { return codes_.data(); }
    bool holds(std::size_t lane) const { return holds_ >> lane & 1; }

private:
    IndexRule rule_;
    std::vector<std::uint8_t> codes_;
    std::uint32_t holds_ = 0;
};

}  // namespace edgeprune
