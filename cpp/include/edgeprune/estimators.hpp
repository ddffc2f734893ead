// From joint counts to information, in nats.
//
// Plug-in values by I = [sum f(n_bk) - sum f(n_b) - sum f(n_k) + f(N)] / N with f(n) = n ln n, and
// the occupancy numbers that every bias correction needs. Nothing is clipped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/counts.hpp"

namespace edgeprune {

// f(n) = n ln n; a table for small n, the same formula beyond it, so both give the same bits.
class EntropyTerm {
public:
    explicit EntropyTerm(std::uint64_t largest);
    double operator()(std::uint64_t n) const { return n < table_.size() ? table_[n] : compute(n); }
    const std::vector<double>& table() const { return table_; }

private:
    static double compute(std::uint64_t n);
    std::vector<double> table_;
};

struct TableStatistics {
    double samples = 0;            // N
    double information = 0;        // I(T;Y)
    double entropy = 0;            // H(T)
    double class_entropy = 0;      // H(Y)
    double bins = 0;               // rows with a count
    double classes = 0;            // columns with a count
    double cells = 0;              // cells with a count
    double smallest_expected = 0;  // least n_b * n_k / N over occupied rows and columns
};

// The sums behind one table's statistics, class by class. The same bits as from the whole table where the
// classes come in the same order; classes without samples may be left out.
class TableSums {
public:
    explicit TableSums(std::size_t bins) : per_bin_(bins, 0) {}
    void add_class(const std::uint32_t* counts, const EntropyTerm& f);
    TableStatistics statistics(const EntropyTerm& f) const;

private:
    double joint_[4] = {}, columns_ = 0;
    std::uint64_t total_ = 0, cells_ = 0, used_columns_ = 0, least_column_ = ~std::uint64_t{0};
    std::vector<std::uint32_t> per_bin_;  // no channel has more than 2^32 - 1 samples
};

// counts (channels, classes, bins); a table without counts gives zeros.
void table_statistics(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                      std::size_t bins, TableStatistics* out, std::size_t threads);

// The same straight from activations, on frozen edges: no table is ever held, whatever the number of classes.
// False: a value was not finite.
bool label_statistics(const View& view, const float* thresholds, std::size_t threshold_count, const Labels& labels,
                      TableStatistics* out, std::size_t threads);

// Mean plug-in information when the labels are shuffled, exactly: the expectation over all tables
// with the same margins (hypergeometric; Vinh, Epps & Bailey 2010).
void shuffled_information(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, double* out, std::size_t threads);

// Share of `rounds` label shuffles whose plug-in information reaches the observed one, counting the
// observed table itself: (1 + hits) / (1 + rounds). The stream depends on seed and channel only.
void permutation_p_values(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, std::size_t rounds, std::uint64_t seed, double* out,
                          std::size_t threads);

}  // namespace edgeprune
