#include "edgeprune/estimators.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

constexpr std::uint64_t largest_table = std::uint64_t{1} << 20;  // 8 MB of doubles

struct Margins {
    std::vector<std::uint64_t> bins, classes;
    std::uint64_t samples = 0;

    void take(const std::uint32_t* table, std::size_t class_count, std::size_t bin_count) {
        bins.assign(bin_count, 0);
        classes.assign(class_count, 0);
        for (std::size_t k = 0; k < class_count; ++k)
            for (std::size_t b = 0; b < bin_count; ++b) {
                bins[b] += table[k * bin_count + b];
                classes[k] += table[k * bin_count + b];
            }
        samples = std::accumulate(classes.begin(), classes.end(), std::uint64_t{0});
    }
};

std::uint64_t largest_total(const std::uint32_t* counts, std::size_t channels, std::size_t size) {
    std::uint64_t largest = 0;
    for (std::size_t c = 0; c < channels; ++c)
        largest = std::max(largest, std::accumulate(counts + c * size, counts + (c + 1) * size, std::uint64_t{0}));
    return largest;
}

double information_of(const std::uint32_t* table, const Margins& margins, std::size_t classes,
                      std::size_t bins, const EntropyTerm& f) {
    double sum = 0;
    for (std::size_t i = 0; i < classes * bins; ++i) sum += f(table[i]);
    for (const std::uint64_t n : margins.bins) sum -= f(n);
    for (const std::uint64_t n : margins.classes) sum -= f(n);
    return (sum + f(margins.samples)) / static_cast<double>(margins.samples);
}

// splitmix64: a small generator whose stream is the same on every machine.
struct Stream {
    std::uint64_t state;
    std::uint64_t next() {
        std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t bound) {  // bound < 2^32: bias below 2^-32
        return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
    }
};

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
    std::uint32_t* per_bin = per_bin_.data();
    std::uint32_t column = 0, cells = 0;
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
    least_column_ = std::min<std::uint64_t>(least_column_, column);
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
    for (const std::uint32_t n : per_bin_) {
        if (n == 0) continue;
        ++used_rows;
        rows += FixedTerm::of(n);
        least_row = std::min<std::uint64_t>(least_row, n);
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

void shuffled_information(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, double* out, std::size_t threads) {
    const std::size_t size = classes * bins;
    const std::uint64_t largest = largest_total(counts, channels, size);
    const EntropyTerm f(largest);
    parallel_for(channels, 1, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        Margins margins;
        for (std::size_t c = begin; c < end; ++c) {
            margins.take(counts + c * size, classes, bins);
            out[c] = 0;
            if (margins.samples == 0) continue;
            const double samples = static_cast<double>(margins.samples);
            double joint = 0;
            for (const std::uint64_t row : margins.bins)
                for (const std::uint64_t column : margins.classes) {
                    if (row == 0 || column == 0) continue;
                    // E f(n) for n hypergeometric: walk out from the mode, where the weight is 1,
                    // and divide by the sum of weights; tails below 1e-18 of the mode add nothing.
                    const double a = static_cast<double>(row), b = static_cast<double>(column);
                    const std::uint64_t low = row + column > margins.samples ? row + column - margins.samples : 0;
                    const std::uint64_t high = std::min(row, column);
                    const std::uint64_t mode = std::clamp(
                        static_cast<std::uint64_t>((a + 1) * (b + 1) / (samples + 2)), low, high);
                    double weight = 1, total = 1, mean = f(mode);
                    for (std::uint64_t n = mode; n < high && weight > 1e-18; ++n) {
                        const double m = static_cast<double>(n);
                        weight *= (a - m) * (b - m) / ((m + 1) * (samples - a - b + m + 1));
                        total += weight;
                        mean += weight * f(n + 1);
                    }
                    weight = 1;
                    for (std::uint64_t n = mode; n > low && weight > 1e-18; --n) {
                        const double m = static_cast<double>(n);
                        weight *= m * (samples - a - b + m) / ((a - m + 1) * (b - m + 1));
                        total += weight;
                        mean += weight * f(n - 1);
                    }
                    joint += mean / total;
                }
            double sum = joint + f(margins.samples);
            for (const std::uint64_t n : margins.bins) sum -= f(n);
            for (const std::uint64_t n : margins.classes) sum -= f(n);
            out[c] = sum / samples;
        }
    });
}

void permutation_p_values(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, std::size_t rounds, std::uint64_t seed, double* out,
                          std::size_t threads) {
    const std::size_t size = classes * bins;
    const EntropyTerm f(largest_total(counts, channels, size));
    parallel_for(channels, 1, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        Margins margins;
        std::vector<std::uint32_t> labels, table(size);
        for (std::size_t c = begin; c < end; ++c) {
            const std::uint32_t* own = counts + c * size;
            margins.take(own, classes, bins);
            out[c] = 1;
            if (margins.samples == 0) continue;
            labels.clear();
            for (std::size_t k = 0; k < classes; ++k)
                labels.insert(labels.end(), margins.classes[k], static_cast<std::uint32_t>(k));
            const double observed = information_of(own, margins, classes, bins, f);
            const double tolerance = 1e-12 * (1 + std::abs(observed));
            Stream stream{seed * 0x9e3779b97f4a7c15u + c};
            std::size_t hits = 0;
            for (std::size_t round = 0; round < rounds; ++round) {
                std::fill(table.begin(), table.end(), 0);
                std::size_t drawn = 0;
                for (std::size_t b = 0; b < bins; ++b)
                    for (std::uint64_t i = 0; i < margins.bins[b]; ++i, ++drawn) {
                        std::swap(labels[drawn], labels[drawn + stream.below(labels.size() - drawn)]);
                        ++table[labels[drawn] * bins + b];
                    }
                hits += information_of(table.data(), margins, classes, bins, f) >= observed - tolerance;
            }
            out[c] = (1.0 + static_cast<double>(hits)) / (1.0 + static_cast<double>(rounds));
        }
    });
}

}  // namespace edgeprune
