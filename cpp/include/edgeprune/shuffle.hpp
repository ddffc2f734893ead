// What information remains when labels are shuffled: its mean, exactly, and how often it reaches a value.
//
// Shuffling keeps both margins of a table, so everything here depends on them alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "edgeprune/estimators.hpp"

namespace edgeprune {

struct Margins {
    std::vector<std::uint64_t> bins, classes;
    std::uint64_t samples = 0;

    // table (classes, bins)
    void take(const std::uint32_t* table, std::size_t class_count, std::size_t bin_count);
};

// Mean plug-in information over all tables with the same margins (hypergeometric; Vinh, Epps & Bailey 2010).
//
// Classes of one size add the same, so each size is summed once; and as neighbouring channels are counted
// against the same labels, what a row of n samples adds is remembered until other classes come.
class ShuffledMean {
public:
    explicit ShuffledMean(const EntropyTerm& f) : f_(f) {}
    double operator()(const Margins& margins);

private:
    void take_classes(const Margins& margins);
    double row(std::uint64_t n);

    const EntropyTerm& f_;
    std::vector<std::uint64_t> classes_;
    std::vector<std::pair<double, double>> sizes_;  // of classes, and how many have it
    std::uint64_t samples_ = 0;
    double constant_ = 0;
    std::unordered_map<std::uint64_t, double> rows_;
};

// The mean for every channel; counts (channels, classes, bins). A table without counts gives zero.
void shuffled_information(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, double* out, std::size_t threads);

constexpr std::uint64_t most_permuted = std::uint64_t{1} << 26;  // samples

// Share of `rounds` label shuffles whose plug-in information reaches the observed one, counting the
// observed table itself: (1 + hits) / (1 + rounds). Channels with the same classes meet the same shuffles, so
// a channel's value depends on its own table and the seed alone. Throws invalid_argument for more than
// most_permuted samples.
void permutation_p_values(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, std::size_t rounds, std::uint64_t seed, double* out,
                          std::size_t threads);

}  // namespace edgeprune
