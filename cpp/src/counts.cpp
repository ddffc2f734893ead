#include "edgeprune/counts.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

#include "edgeprune/edges.hpp"
#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {
namespace {

// Two cache lines of a float32 row; 32 tables of 65 x 10 counters stay in the second-level cache.
constexpr std::size_t block_channels = 32;
constexpr std::size_t block_samples = 256;
// A pitch that is no power of two keeps the tile's rows out of each other's cache sets.
constexpr std::size_t block_pitch = block_samples + 16;

struct alignas(64) Scratch {
    float tile[block_channels * block_pitch];
    std::uint32_t base[block_samples];
    std::uint32_t index[block_samples];
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
        std::vector<SearchTable> tables;
        for (std::size_t channel = begin; channel < end; channel += block_channels) {
            const std::size_t width = std::min(block_channels, end - channel);
            tables.clear();
            for (std::size_t c = 0; c < width; ++c)
                tables.emplace_back(thresholds + (channel + c) * threshold_count, threshold_count);
            for (std::size_t first = 0; first < view.samples; first += block_samples) {
                const std::size_t count = std::min(block_samples, view.samples - first);
                if (!load_tile(view, nullptr, first, count, channel, width, own.tile, block_pitch)) finite = false;
                for (std::size_t c = 0; c < width; ++c)
                    kernels().search(tables[c], own.tile + c * block_pitch, count,
                                     codes + (channel + c) * view.samples + first);
            }
        }
    });
    return finite;
}

bool add_counts(const View& view, const float* thresholds, std::size_t threshold_count,
                const Labels& labels, std::uint32_t* counts, std::size_t threads) {
    const std::size_t bins = threshold_count + 1;
    check_sizes(bins, labels);
    const std::size_t table_size = labels.classes * bins;
    threads = resolve_threads(threads);
    std::vector<Scratch> scratch(threads);
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block_channels, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        std::vector<SearchTable> tables;
        for (std::size_t channel = begin; channel < end; channel += block_channels) {
            const std::size_t width = std::min(block_channels, end - channel);
            tables.clear();
            for (std::size_t c = 0; c < width; ++c)
                tables.emplace_back(thresholds + (channel + c) * threshold_count, threshold_count);
            for (std::size_t first = 0; first < view.samples; first += block_samples) {
                const std::size_t count = std::min(block_samples, view.samples - first);
                if (!load_tile(view, nullptr, first, count, channel, width, own.tile, block_pitch)) finite = false;
                for (std::size_t i = 0; i < count; ++i)
                    own.base[i] = static_cast<std::uint32_t>(labels.data[first + i]) * static_cast<std::uint32_t>(bins);
                for (std::size_t c = 0; c < width; ++c) {
                    kernels().search_index(tables[c], own.tile + c * block_pitch, count, own.base, own.index);
                    std::uint32_t* table = counts + (channel + c) * table_size;
                    for (std::size_t i = 0; i < count; ++i) ++table[own.index[i]];
                }
            }
        }
    });
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

}  // namespace edgeprune
