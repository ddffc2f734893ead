#include "edgeprune/counts.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "edgeprune/edges.hpp"
#include "edgeprune/estimators.hpp"
#include "edgeprune/parallel.hpp"
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
}

}  // namespace

std::size_t check_labels(const Labels& labels) {
    for (std::size_t i = 0; i < labels.count; ++i)
        if (labels.data[i] < 0 || static_cast<std::size_t>(labels.data[i]) >= labels.classes) return i;
    return labels.count;
}

bool encode(const View& view, const float* thresholds, std::size_t threshold_count, std::uint8_t* codes,
            std::size_t threads) {
    threads = resolve_threads(threads);
    std::vector<Scratch> scratch(threads);
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block_channels, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        for (std::size_t channel = begin; channel < end; channel += block_channels) {
            const std::size_t width = std::min(block_channels, end - channel);
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
    threads = resolve_threads(threads);
    const std::size_t block = BlockTally::block_channels(view.channels, threads);
    threads = std::min(threads, (view.channels + block - 1) / block);
    std::vector<BlockTally> scratch(std::max<std::size_t>(threads, 1), BlockTally(std::min(block, view.channels)));
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block, scratch.size(),
                 [&](std::size_t begin, std::size_t end, std::size_t worker) {
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
                      TableStatistics* out, std::size_t threads) {
    const std::size_t bins = threshold_count + 1;
    check_sizes(bins, labels);
    SumClasses sums{std::vector<TableSums>(view.channels, TableSums(bins))};
    const bool finite = tally(view, thresholds, threshold_count, ClassOrder(labels), threads, sums);
    for (std::size_t c = 0; c < view.channels; ++c) out[c] = sums.channels[c].statistics();
    return finite;
}

void add_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                std::size_t samples, std::size_t channels, std::size_t bins, const Labels& labels,
                std::uint32_t* counts, std::size_t threads) {
    check_sizes(bins, labels);
    const std::size_t table_size = labels.classes * bins;
    std::atomic<bool> in_range{true};
    parallel_for(channels, 16, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t channel = begin; channel < end; ++channel) {
            const std::uint8_t* code = codes + static_cast<std::ptrdiff_t>(channel) * channel_stride;
            std::uint32_t* table = counts + channel * table_size;
            for (std::size_t i = 0; i < samples; ++i, code += sample_stride) {
                if (*code >= bins) {
                    in_range = false;
                    return;
                }
                ++table[static_cast<std::size_t>(labels.data[i]) * bins + *code];
            }
        }
    });
    if (!in_range) throw std::invalid_argument("a code is not below bins");
}

void add_soft_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                     std::size_t samples, std::size_t channels, std::size_t bins, const std::uint32_t* weights,
                     std::size_t classes, std::uint32_t* counts, std::size_t threads) {
    parallel_for(channels, 16, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t channel = begin; channel < end; ++channel) {
            const std::uint8_t* code = codes + static_cast<std::ptrdiff_t>(channel) * channel_stride;
            std::uint32_t* table = counts + channel * classes * bins;
            for (std::size_t i = 0; i < samples; ++i, code += sample_stride)
                for (std::size_t k = 0; k < classes; ++k) table[k * bins + *code] += weights[i * classes + k];
        }
    });
}

}  // namespace edgeprune
