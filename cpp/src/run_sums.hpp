// Sums over classes, sixteen channels at a time.
//
// With many classes a channel has more cells (codes times classes) than samples, and looking n ln n up for
// each cell would cost more than counting. But in a class of at most 127 samples most cells are empty or
// small: how many cells exceed 0, 1, ... is all that their sum of n ln n depends on, and comparisons of whole
// vectors of counters, one channel to a lane, tell that. The few larger cells (zero, of a ReLU) are looked up,
// and so is every cell of a larger class.
//
// Guarantee: sums are integers (estimators.hpp), so they equal those of TableSums bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/estimators.hpp"
#include "lookup.hpp"
#include "run_kernels.hpp"

namespace edgeprune {

class RunSums {
public:
    static constexpr std::size_t longest = FixedTerm::in_table;  // samples of a class

    // Zero everything for channels of so many codes, their counters `pitch` apart.
    void reset(std::size_t groups, std::size_t bins, std::size_t pitch);

    // One class of a group's sixteen channels: their counters (tally.hpp) are taken and cleared.
    void close(std::size_t group, std::uint32_t* counters, std::size_t samples);

    // What the closed classes add up to, for one channel; valid until the next call.
    ClassSums sums(std::size_t channel);

private:
    static constexpr std::size_t halves = group_channels / half_channels;
    // Samples before anything could overflow: n ln n sums to at most 7000 ln 4096 < 2^16, in units of 2^-48.
    static constexpr std::size_t most_samples = 7000;

    struct Group {
        RunState half[halves];
        std::size_t unflushed = 0;  // samples
        std::uint64_t samples = 0, runs = 0, shortest = ~std::uint64_t{0};
        FixedSum columns = 0;
    };

    void flush(std::size_t group);

    std::size_t codes_ = 0, pitch_ = 0;
    std::vector<Group> groups_;
    std::vector<std::uint16_t> per_bin_;  // of short classes since the last flush
    // Of all that is flushed:
    std::vector<std::uint32_t> totals_;  // per bin: (pair, code, channel of the pair)
    std::vector<std::uint64_t> cells_;   // by channel
    std::vector<FixedSum> joint_;        // by channel
    std::uint32_t column_[256] = {};
};

}  // namespace edgeprune
