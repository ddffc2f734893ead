#include "edgeprune/shuffle.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>

#include "edgeprune/parallel.hpp"

namespace edgeprune {

void Margins::take(const std::uint32_t* table, std::size_t class_count, std::size_t bin_count) {
    bins.assign(bin_count, 0);
    classes.assign(class_count, 0);
    for (std::size_t k = 0; k < class_count; ++k)
        for (std::size_t b = 0; b < bin_count; ++b) {
            bins[b] += table[k * bin_count + b];
            classes[k] += table[k * bin_count + b];
        }
    samples = std::accumulate(classes.begin(), classes.end(), std::uint64_t{0});
}

void ShuffledMean::take_classes(const Margins& margins) {
    classes_ = margins.classes;
    samples_ = margins.samples;
    constant_ = f_(samples_);
    std::map<std::uint64_t, std::uint64_t> often;
    for (const std::uint64_t n : classes_)
        if (n != 0) ++often[n];
    sizes_.clear();
    for (const auto& [size, times] : often) {
        sizes_.emplace_back(static_cast<double>(size), static_cast<double>(times));
        constant_ -= static_cast<double>(times) * f_(size);
    }
    rows_.clear();
}

// Sum over classes of E f(n), n hypergeometric: walk out from the mode, where the weight is 1, and divide by
// the sum of weights; tails below 1e-18 of the mode add nothing. Less f of the row.
double ShuffledMean::row(std::uint64_t row_size) {
    const double samples = static_cast<double>(samples_), a = static_cast<double>(row_size);
    double sum = 0;
    for (const auto& [b, times] : sizes_) {
        const std::uint64_t column = static_cast<std::uint64_t>(b);
        const std::uint64_t low = row_size + column > samples_ ? row_size + column - samples_ : 0;
        const std::uint64_t high = std::min(row_size, column);
        const std::uint64_t mode =
            std::clamp(static_cast<std::uint64_t>((a + 1) * (b + 1) / (samples + 2)), low, high);
        double weight = 1, total = 1, mean = f_(mode);
        for (std::uint64_t n = mode; n < high && weight > 1e-18; ++n) {
            const double m = static_cast<double>(n);
            weight *= (a - m) * (b - m) / ((m + 1) * (samples - a - b + m + 1));
            total += weight;
            mean += weight * f_(n + 1);
        }
        weight = 1;
        for (std::uint64_t n = mode; n > low && weight > 1e-18; --n) {
            const double m = static_cast<double>(n);
            weight *= m * (samples - a - b + m) / ((a - m + 1) * (b - m + 1));
            total += weight;
            mean += weight * f_(n - 1);
        }
        sum += times * (mean / total);
    }
    return sum - f_(row_size);
}

double ShuffledMean::operator()(const Margins& margins) {
    constexpr std::size_t most = std::size_t{1} << 16;  // rows remembered: some 2 MB
    if (margins.samples == 0) return 0;
    if (margins.classes != classes_) take_classes(margins);
    double sum = constant_;
    for (const std::uint64_t n : margins.bins) {
        if (n == 0) continue;
        if (rows_.size() >= most) rows_.clear();
        const auto [at, is_new] = rows_.try_emplace(n, 0.0);
        if (is_new) at->second = row(n);
        sum += at->second;
    }
    return sum / static_cast<double>(samples_);
}

void shuffled_information(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, double* out, std::size_t threads) {
    constexpr std::size_t chunk = 16;  // channels that share what is remembered
    const std::size_t size = classes * bins;
    std::uint64_t largest = 0;
    for (std::size_t c = 0; c < channels; ++c)
        largest = std::max(largest, std::accumulate(counts + c * size, counts + (c + 1) * size, std::uint64_t{0}));
    const EntropyTerm f(largest);
    threads = crew_size(threads, channels, chunk);
    std::vector<ShuffledMean> means(threads, ShuffledMean(f));
    parallel_for(channels, chunk, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Margins margins;
        for (std::size_t c = begin; c < end; ++c) {
            margins.take(counts + c * size, classes, bins);
            out[c] = means[worker](margins);
        }
    });
}

namespace {

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

// n ln n in units of 2^-32: with at most most_permuted samples every sum of them fits 63 bits.
std::int64_t coarse_term(std::uint64_t n) { return static_cast<std::int64_t>(std::rint(entropy_term(n) * 0x1p32)); }

constexpr std::uint64_t most_rises = std::uint64_t{1} << 20;

// What one more sample adds to a cell of n, for n up to the size of the largest class (or most_rises).
std::vector<std::int64_t> make_rises(std::uint64_t largest) {
    std::vector<std::int64_t> rises;
    for (std::uint64_t n = 0; n < std::min(largest, most_rises); ++n)
        rises.push_back(coarse_term(n + 1) - coarse_term(n));
    return rises;
}

struct Tested {
    std::vector<std::uint64_t> rows;  // with samples
    std::int64_t reached = 0;         // the sum over cells that a shuffle must reach
    std::size_t hits = 0;
};

// Deal shuffled labels out to the rows; the sum of n ln n over the cells grows sample by sample.
template <class Rise>
std::int64_t deal(const std::vector<std::uint64_t>& rows, const std::vector<std::uint32_t>& labels,
                  std::vector<std::uint32_t>& cells, Rise&& rise) {
    std::int64_t sum = 0;
    std::uint32_t* cell = cells.data();
    const std::uint32_t* next = labels.data();
    for (const std::uint64_t n : rows) {
        const std::uint32_t* end = next + n;
        for (const std::uint32_t* at = next; at != end; ++at) sum += rise(cell[*at]++);
        if (n * 8 < cells.size()) {
            for (const std::uint32_t* at = next; at != end; ++at) cell[*at] = 0;
        } else {
            std::fill(cells.begin(), cells.end(), 0u);
        }
        next = end;
    }
    return sum;
}

}  // namespace

void permutation_p_values(const std::uint32_t* counts, std::size_t channels, std::size_t classes,
                          std::size_t bins, std::size_t rounds, std::uint64_t seed, double* out,
                          std::size_t threads) {
    const std::size_t size = classes * bins;
    threads = crew_size(threads, channels, 1);
    // Every thread shuffles for itself, so each takes one piece.
    const std::size_t chunk = std::max<std::size_t>((channels + threads - 1) / threads, 1);
    parallel_for(channels, chunk, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
        Margins margins, next;
        std::vector<std::uint32_t> labels, cells;
        std::vector<Tested> tested;
        for (std::size_t first = begin; first < end;) {
            margins.take(counts + first * size, classes, bins);
            if (margins.samples > most_permuted) throw std::invalid_argument("too many samples to permute");
            labels.clear();
            std::size_t used = 0;
            for (const std::uint64_t n : margins.classes)
                if (n != 0) labels.insert(labels.end(), n, static_cast<std::uint32_t>(used++));
            cells.assign(used, 0);
            const std::uint64_t largest = *std::max_element(margins.classes.begin(), margins.classes.end());
            const std::vector<std::int64_t> rises = make_rises(largest);
            const std::int64_t* rise = rises.data();
            const auto in_table = [rise](std::uint32_t n) { return rise[n]; };
            const auto beyond = [rise](std::uint32_t n) {
                return n < most_rises ? rise[n] : coarse_term(n + std::uint64_t{1}) - coarse_term(n);
            };
            // Each term is off by half a unit at most, on either side of the comparison.
            const auto tolerance = static_cast<std::int64_t>(std::min<std::uint64_t>(size, margins.samples));
            tested.clear();
            next = margins;
            for (std::size_t c = first; c < end; ++c) {
                if (c != first) next.take(counts + c * size, classes, bins);
                if (next.classes != margins.classes) break;
                Tested own;
                for (const std::uint64_t n : next.bins)
                    if (n != 0) own.rows.push_back(n);
                for (std::size_t i = 0; i < size; ++i) own.reached += coarse_term(counts[c * size + i]);
                own.reached -= tolerance;
                tested.push_back(std::move(own));
            }
            Stream stream{Stream{seed}.next()};  // seeds that are neighbours start far apart
            for (std::size_t round = 0; round < rounds && margins.samples != 0; ++round) {
                for (std::size_t i = labels.size(); i > 1; --i) std::swap(labels[i - 1], labels[stream.below(i)]);
                for (Tested& own : tested)
                    own.hits += own.reached <= (largest <= most_rises ? deal(own.rows, labels, cells, in_table)
                                                                      : deal(own.rows, labels, cells, beyond));
            }
            for (std::size_t i = 0; i < tested.size(); ++i)
                out[first + i] = margins.samples == 0 ? 1.0
                                                      : (1.0 + static_cast<double>(tested[i].hits)) /
                                                            (1.0 + static_cast<double>(rounds));
            first += tested.size();
        }
    });
}

}  // namespace edgeprune
