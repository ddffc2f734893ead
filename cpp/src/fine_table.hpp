// One channel's fine histogram against the label, summed up so that any range of its cells costs one difference a
// class.
//
// With many classes the cells of a fine re-binning outnumber the samples, and nearly all hold 0 to 6 of them: eight
// classes at a time are compared with 0, 1, ..., 5 (as in run_sums.hpp), and only larger ones looked up. Sums of
// n ln n are integers (estimators.hpp), so both ways give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/estimators.hpp"

namespace edgeprune {

class FineTable {
public:
    // What the classes of one range of cells add up to.
    struct Row {
        FixedSum joint = 0;
        std::uint64_t cells = 0;  // classes with a sample
        std::uint64_t samples = 0;
    };

    // counts (classes, cells)
    void take(const std::uint32_t* counts, std::size_t classes, std::size_t cells);

    Row row(std::size_t begin, std::size_t end);

    std::uint64_t samples() const { return totals_.back(); }
    std::uint64_t used_classes() const { return used_classes_; }
    FixedSum class_term() const { return class_term_; }

private:
    static constexpr std::size_t together = 8;
    static constexpr std::size_t few_classes = 64;
    static constexpr std::size_t most_together = together << 15;  // before a count of 16 bits could overflow
    static constexpr std::uint64_t longest = FixedTerm::in_table;  // samples of a class, for comparisons of 16 bits

    template <class Count>
    void sum_up(const std::uint32_t* counts, std::size_t cells, std::vector<Count>& below);
    Row compare(const std::uint16_t* low, const std::uint16_t* high);
    template <class Count>
    Row look_up(const Count* low, const Count* high) const;

    std::size_t classes_ = 0, pitch_ = 0;
    bool narrow_ = false;
    std::vector<std::uint16_t> narrow_below_;  // (cells + 1, pitch): samples below each cell
    std::vector<std::uint32_t> below_;         // the same, where 16 bits are too few or there are few classes
    std::vector<std::uint64_t> totals_;        // (cells + 1): the same over all classes
    std::uint64_t used_classes_ = 0;
    FixedSum class_term_ = 0;
    std::vector<std::size_t> with_large_;  // scratch of compare
};

}  // namespace edgeprune
