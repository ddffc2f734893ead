#include "edgeprune/counts.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "edgeprune/edges.hpp"
#include "edgeprune/estimators.hpp"
#include "edgeprune/parallel.hpp"
#include "edgeprune/shuffle.hpp"
#include "kernels.hpp"
#include "tally.hpp"

namespace edgeprune {
namespace {

// Four cache lines of a float32 row; tile and tables stay in the second-level cache.
constexpr std::size_t block_channels = 64;
constexpr std::size_t block_samples = 256;
// A pitch that is no power of two keeps the tile's rows out of each other's cache sets.
constexpr std::size_t block_pitch = block_samples + 16;

using Key = std::int16_t;

// One thread's tile and tables for a block of channels whose codes are stored.
struct alignas(64) Scratch {
    float floats[block_channels * block_pitch];
    Key keys[block_channels * block_pitch];
    std::vector<SearchTable<float>> float_tables;
    std::vector<SearchTable<Key>> key_tables;
    std::vector<std::size_t> slot;  // of each channel in its list of tables
    std::vector<char> by_key;

    void take_edges(const float* thresholds, std::size_t count, std::size_t width) {
        float_tables.clear();
        key_tables.clear();
        slot.clear();
        by_key.clear();
        for (std::size_t c = 0; c < width; ++c) {
            const float* own = thresholds + c * count;
            by_key.push_back(on_grid(own, count));
            slot.push_back(by_key.back() ? key_tables.size() : float_tables.size());
            if (by_key.back()) key_tables.push_back(make_table<Key>(own, count));
            else float_tables.push_back(make_table<float>(own, count));
        }
    }

    bool load(const View& view, std::size_t first, std::size_t count, std::size_t channel, std::size_t width) {
        bool finite = true;
        if (!key_tables.empty()) finite &= load_tile(view, nullptr, first, count, channel, width, keys, block_pitch);
        if (!float_tables.empty()) finite &= load_tile(view, nullptr, first, count, channel, width, floats, block_pitch);
        return finite;
    }

    void search(std::size_t c, std::size_t count, std::uint8_t* out) const {
        if (by_key[c]) kernels().keys.search(key_tables[slot[c]], keys + c * block_pitch, count, out);
        else kernels().floats.search(float_tables[slot[c]], floats + c * block_pitch, count, out);
    }
};

void check_sizes(std::size_t bins, const Labels& labels) {
    if (bins == 0 || bins > 256) throw std::invalid_argument("bins must be 1..256");
    if (labels.classes == 0 || labels.classes * bins > max_samples)
        throw std::invalid_argument("classes times bins must be 1..2^32-1");
    if (labels.count > max_samples) throw std::invalid_argument("at most 2^32-1 samples can be counted");
}

}  // namespace

std::size_t check_labels(const Labels& labels) {
    for (std::size_t i = 0; i < labels.count; ++i)
        if (labels.data[i] < 0 || static_cast<std::size_t>(labels.data[i]) >= labels.classes) return i;
    return labels.count;
}

bool encode(const View& view, const float* thresholds, std::size_t threshold_count, std::uint8_t* codes,
            std::size_t threads) {
    const std::size_t block = fair_block(view.channels, resolve_threads(threads), block_channels);
    threads = crew_size(threads, view.channels, block);
    std::vector<Scratch> scratch(threads);
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        for (std::size_t channel = begin; channel < end; channel += block) {
            const std::size_t width = std::min(block, end - channel);
            own.take_edges(thresholds + channel * threshold_count, threshold_count, width);
            for (std::size_t first = 0; first < view.samples; first += block_samples) {
                const std::size_t count = std::min(block_samples, view.samples - first);
                if (!own.load(view, first, count, channel, width)) finite = false;
                for (std::size_t c = 0; c < width; ++c)
                    own.search(c, count, codes + (channel + c) * view.samples + first);
            }
        }
    });
    return finite;
}

namespace {

// What a sink is told about a channel comes from the one thread that works on the channel (tally.hpp).
template <class Sink>
bool tally(const View& view, const float* thresholds, std::size_t threshold_count, const ClassOrder& order,
           std::size_t threads, Sink& sink) {
    const std::size_t block = BlockTally::block_channels(view.channels, resolve_threads(threads));
    threads = crew_size(threads, view.channels, block);
    std::vector<BlockTally> scratch(threads, BlockTally(std::min(block, view.channels)));
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        BlockTally& own = scratch[worker];
        for (std::size_t channel = begin; channel < end; channel += block) {
            own.take_edges(thresholds + channel * threshold_count, threshold_count,
                           std::min(block, end - channel));
            if (!own.walk(view, channel, order, sink)) finite = false;
        }
    });
    return finite;
}

// Adds `step`, modulo 2^32, per sample: 1, or 2^32 - 1 to take the same samples out again.
struct AddSteps {
    static constexpr bool sums_runs = false;
    std::uint32_t* counts;
    std::size_t classes, bins;
    std::uint32_t step;

    void add_class(std::size_t channel, std::size_t label, const std::uint32_t* histogram) {
        std::uint32_t* row = counts + (channel * classes + label) * bins;
        for (std::size_t b = 0; b < bins; ++b) row[b] += step * histogram[b];
    }
};

struct SumClasses {
    static constexpr bool sums_runs = true;
    std::vector<TableSums> channels;

    void add_class(std::size_t channel, std::size_t, const std::uint32_t* histogram) {
        channels[channel].add_class(histogram);
    }
    void add_classes(std::size_t channel, const ClassSums& sums) { channels[channel].add_classes(sums); }
};

bool add_steps(const View& view, const float* thresholds, std::size_t threshold_count, const Labels& labels,
               const ClassOrder& order, std::uint32_t step, std::uint32_t* counts, std::size_t threads) {
    AddSteps sink{counts, labels.classes, threshold_count + 1, step};
    return tally(view, thresholds, threshold_count, order, threads, sink);
}

}  // namespace

bool add_counts(const View& view, const float* thresholds, std::size_t threshold_count,
                const Labels& labels, std::uint32_t* counts, std::size_t threads) {
    check_sizes(threshold_count + 1, labels);
    const ClassOrder order(labels);
    if (add_steps(view, thresholds, threshold_count, labels, order, 1, counts, threads)) return true;
    // NaN and infinities get codes like any value, so the same walk takes everything out again.
    add_steps(view, thresholds, threshold_count, labels, order, 0xffffffffu, counts, threads);
    return false;
}

bool label_statistics(const View& view, const float* thresholds, std::size_t threshold_count, const Labels& labels,
                      TableStatistics* out, double* shuffled, std::size_t threads) {
    const std::size_t bins = threshold_count + 1;
    check_sizes(bins, labels);
    SumClasses sums{std::vector<TableSums>(view.channels, TableSums(bins))};
    const bool finite = tally(view, thresholds, threshold_count, ClassOrder(labels), threads, sums);
    for (std::size_t c = 0; c < view.channels; ++c) out[c] = sums.channels[c].statistics();
    if (shuffled == nullptr) return finite;
    Margins margins;
    margins.samples = labels.count;
    margins.classes.assign(labels.classes, 0);
    for (std::size_t i = 0; i < labels.count; ++i) ++margins.classes[static_cast<std::size_t>(labels.data[i])];
    const EntropyTerm f(labels.count);
    threads = crew_size(threads, view.channels, 64);
    std::vector<ShuffledMean> means(threads, ShuffledMean(f));
    parallel_for(view.channels, 64, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Margins own = margins;
        for (std::size_t c = begin; c < end; ++c) {
            own.bins = sums.channels[c].per_bin();
            shuffled[c] = means[worker](own);
        }
    });
    return finite;
}

namespace {

// add(table, sample, code) for every sample of every channel. A caller may write to its codes meanwhile, so each
// is read once: what was checked is what is used.
template <class Add>
void for_each_code(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                   std::size_t samples, std::size_t channels, std::size_t bins, std::size_t table_size,
                   std::uint32_t* counts, std::size_t threads, Add&& add) {
    std::atomic<bool> in_range{true};
    parallel_for(channels, 16, crew_size(threads, channels, 16), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t channel = begin; channel < end; ++channel) {
            const std::uint8_t* at = codes + static_cast<std::ptrdiff_t>(channel) * channel_stride;
            for (std::size_t i = 0; i < samples; ++i, at += sample_stride) {
                const std::size_t code = *static_cast<const volatile std::uint8_t*>(at);
                if (code >= bins) {
                    in_range = false;
                    return;
                }
                add(counts + channel * table_size, i, code);
            }
        }
    });
    if (!in_range) throw std::invalid_argument("a code is not below bins");
}

}  // namespace

void add_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                std::size_t samples, std::size_t channels, std::size_t bins, const Labels& labels,
                std::uint32_t* counts, std::size_t threads) {
    check_sizes(bins, labels);
    for_each_code(codes, sample_stride, channel_stride, samples, channels, bins, labels.classes * bins, counts, threads,
                  [&](std::uint32_t* table, std::size_t i, std::size_t code) {
                      ++table[static_cast<std::size_t>(labels.data[i]) * bins + code];
                  });
}

void add_soft_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                     std::size_t samples, std::size_t channels, std::size_t bins, const std::uint32_t* weights,
                     std::size_t classes, std::uint32_t* counts, std::size_t threads) {
    for_each_code(codes, sample_stride, channel_stride, samples, channels, bins, classes * bins, counts, threads,
                  [&](std::uint32_t* table, std::size_t i, std::size_t code) {
                      for (std::size_t k = 0; k < classes; ++k) table[k * bins + code] += weights[i * classes + k];
                  });
}

}  // namespace edgeprune
