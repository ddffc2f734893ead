#include "edgeprune/estimators.hpp"

#include <algorithm>
#include <cmath>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

constexpr std::uint64_t largest_table = std::uint64_t{1} << 20;  // 8 MB of doubles

}  // namespace

double entropy_term(std::uint64_t n) {
    return n < 2 ? 0.0 : static_cast<double>(n) * std::log(static_cast<double>(n));
}

EntropyTerm::EntropyTerm(std::uint64_t largest) : table_(std::min(largest, largest_table) + 1) {
    for (std::size_t n = 0; n < table_.size(); ++n) table_[n] = entropy_term(n);
}

const std::uint64_t* FixedTerm::table() {
    static const std::vector<std::uint64_t> made = [] {
        std::vector<std::uint64_t> terms;
        for (std::uint64_t n = 0; n <= in_table; ++n) terms.push_back(static_cast<std::uint64_t>(compute(n)));
        return terms;
    }();
    return made.data();
}

FixedSum FixedTerm::compute(std::uint64_t n) {
    return static_cast<FixedSum>(std::rint(entropy_term(n) * units));
}

void TableSums::add_class(const std::uint32_t* counts) {
    const std::size_t bins = per_bin_.size();
    std::uint64_t* per_bin = per_bin_.data();
    std::uint64_t column = 0, cells = 0;  // a caller's table may hold anything: 64 bits cannot overflow
    for (std::size_t b = 0; b < bins; ++b) {
        const std::uint32_t n = counts[b];
        per_bin[b] += n;
        column += n;
        cells += n != 0;
    }
    if (column == 0) return;
    const std::uint64_t* term = FixedTerm::table();
    if (column <= FixedTerm::in_table) {  // then so is every count, and the sum of terms is at most the column's
        std::uint64_t joint = 0;
        for (std::size_t b = 0; b < bins; ++b) joint += term[counts[b]];
        joint_ += joint;
    } else {
        for (std::size_t b = 0; b < bins; ++b) joint_ += FixedTerm::of(counts[b]);
    }
    cells_ += cells;
    total_ += column;
    ++used_columns_;
    columns_ += FixedTerm::of(column);
    least_column_ = std::min(least_column_, column);
}

void TableSums::add_classes(const ClassSums& classes) {
    for (std::size_t b = 0; b < per_bin_.size(); ++b) per_bin_[b] += classes.per_bin[b];
    joint_ += classes.joint;
    columns_ += classes.columns;
    cells_ += classes.cells;
    total_ += classes.samples;
    used_columns_ += classes.classes;
    least_column_ = std::min(least_column_, classes.smallest_class);
}

TableStatistics TableSums::statistics() const {
    TableStatistics out;
    if (total_ == 0) return out;
    FixedSum rows = 0;
    std::uint64_t used_rows = 0, least_row = ~std::uint64_t{0};
    for (const std::uint64_t n : per_bin_) {
        if (n == 0) continue;
        ++used_rows;
        rows += FixedTerm::of(n);
        least_row = std::min(least_row, n);
    }
    const double samples = static_cast<double>(total_);
    const FixedSum all = FixedTerm::of(total_);
    const auto nats = [samples](FixedSum plus, FixedSum minus) {  // a difference may be below zero
        return static_cast<double>(static_cast<__int128>(plus - minus)) / FixedTerm::units / samples;
    };
    out.samples = samples;
    out.information = nats(joint_ + all, rows + columns_);
    out.entropy = nats(all, rows);
    out.class_entropy = nats(all, columns_);
    out.bins = static_cast<double>(used_rows);
    out.classes = static_cast<double>(used_columns_);
    out.cells = static_cast<double>(cells_);
    out.smallest_expected = static_cast<double>(least_row) * static_cast<double>(least_column_) / samples;
    return out;
}

void table_statistics(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                      std::size_t bins, TableStatistics* out, std::size_t threads) {
    const std::size_t size = classes * bins;
    parallel_for(channels, 16, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t c = begin; c < end; ++c) {
            TableSums sums(bins);
            for (std::size_t k = 0; k < classes; ++k) sums.add_class(counts + c * size + k * bins);
            out[c] = sums.statistics();
        }
    });
}

}  // namespace edgeprune
