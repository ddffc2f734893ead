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

double entropy_term(std::uint64_t n);  // f(n) = n ln n

// The same by a table for small n, so both give the same bits.
class EntropyTerm {
public:
    explicit EntropyTerm(std::uint64_t largest);
    double operator()(std::uint64_t n) const { return n < table_.size() ? table_[n] : entropy_term(n); }

private:
    std::vector<double> table_;
};

// Sums of n ln n as integers: no order of addition, no way of getting at them changes a bit.
using FixedSum = unsigned __int128;

// f(n) = n ln n in units of 2^-48.
class FixedTerm {
public:
    static constexpr double units = 0x1p48;
    static constexpr std::uint64_t in_table = 4096;  // the last n; its terms and their sums fit 64 bits
    static const std::uint64_t* table();
    static FixedSum of(std::uint64_t n) { return n <= in_table ? FixedSum{table()[n]} : compute(n); }

private:
    static FixedSum compute(std::uint64_t n);
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

// What several classes of one channel add up to.
struct ClassSums {
    const std::uint32_t* per_bin;
    FixedSum joint, columns;  // f over cells, over classes
    std::uint64_t cells;      // with a count
    std::uint64_t samples, classes, smallest_class;
};

// The sums behind one table's statistics. The same bits from its classes in any order, one by one or summed
// before; classes without samples may be left out.
class TableSums {
public:
    explicit TableSums(std::size_t bins) : per_bin_(bins, 0) {}
    void add_class(const std::uint32_t* counts);
    void add_classes(const ClassSums& classes);
    TableStatistics statistics() const;
    const std::vector<std::uint64_t>& per_bin() const { return per_bin_; }

private:
    FixedSum joint_ = 0, columns_ = 0;
    std::uint64_t total_ = 0, cells_ = 0, used_columns_ = 0, least_column_ = ~std::uint64_t{0};
    std::vector<std::uint64_t> per_bin_;
};

// counts (channels, classes, bins); a table without counts gives zeros.
void table_statistics(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                      std::size_t bins, TableStatistics* out, std::size_t threads);

// The same straight from activations, on frozen edges: no table is ever held, whatever the number of classes.
// `shuffled` (channels), unless it is null, gets the mean under shuffled labels (shuffle.hpp), which needs no table
// either. False: a value was not finite.
bool label_statistics(const View& view, const float* thresholds, std::size_t threshold_count, const Labels& labels,
                      TableStatistics* out, double* shuffled, std::size_t threads);

}  // namespace edgeprune
