#include "edgeprune/counts.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "edgeprune/edges.hpp"
#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {
namespace {

// Four cache lines of a float32 row; tile, tables and 64 x 65 x 10 counters stay in the second-level cache.
constexpr std::size_t block_channels = 64;
constexpr std::size_t block_samples = 256;
// A pitch that is no power of two keeps the tile's rows out of each other's cache sets.
constexpr std::size_t block_pitch = block_samples + 16;

using Key = std::int16_t;

// One thread's tile and tables for a block of channels.
struct alignas(64) Scratch {
    float floats[block_channels * block_pitch];
    Key keys[block_channels * block_pitch];
    std::uint8_t codes[block_samples];
    std::uint32_t lanes[4][256] = {};  // zero between uses
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

    // Samples first + i, or order[first + i].
    bool load(const View& view, const std::uint32_t* order, std::size_t first, std::size_t count, std::size_t channel,
              std::size_t width) {
        if (order) order += first;
        bool finite = true;
        if (!key_tables.empty()) finite &= load_tile(view, order, first, count, channel, width, keys, block_pitch);
        if (!float_tables.empty()) finite &= load_tile(view, order, first, count, channel, width, floats, block_pitch);
        return finite;
    }

    void search(std::size_t c, std::size_t count, std::uint8_t* out) const {
        if (by_key[c]) kernels().keys.search(key_tables[slot[c]], keys + c * block_pitch, count, out);
        else kernels().floats.search(float_tables[slot[c]], floats + c * block_pitch, count, out);
    }

    // visit(c, first, count) for every tile of samples and each channel of the block. False: a value
    // was not finite.
    template <class Visit>
    bool walk(const View& view, const std::uint32_t* order, std::size_t channel, std::size_t width, Visit&& visit) {
        bool finite = true;
        for (std::size_t first = 0; first < view.samples; first += block_samples) {
            const std::size_t count = std::min(block_samples, view.samples - first);
            finite &= load(view, order, first, count, channel, width);
            for (std::size_t c = 0; c < width; ++c) visit(c, first, count);
        }
        return finite;
    }

    // row[code] += step for `count` codes of one class. Neighbouring samples often share a code (zero,
    // above all), and an increment must wait for the one before it to the same counter: four private
    // counters in turn keep them apart.
    void tally(const std::uint8_t* code, std::size_t count, std::size_t bins, std::uint32_t step, std::uint32_t* row) {
        std::size_t i = 0;
        if (count >= 64) {
            for (; i + 8 <= count; i += 8) {
                std::uint64_t eight;  // bytes may alias the counters: one load, not eight between the stores
                std::memcpy(&eight, code + i, 8);
                ++lanes[0][eight & 0xff];
                ++lanes[1][eight >> 8 & 0xff];
                ++lanes[2][eight >> 16 & 0xff];
                ++lanes[3][eight >> 24 & 0xff];
                ++lanes[0][eight >> 32 & 0xff];
                ++lanes[1][eight >> 40 & 0xff];
                ++lanes[2][eight >> 48 & 0xff];
                ++lanes[3][eight >> 56];
            }
            for (std::size_t b = 0; b < bins; ++b) {
                row[b] += step * (lanes[0][b] + lanes[1][b] + lanes[2][b] + lanes[3][b]);
                lanes[0][b] = lanes[1][b] = lanes[2][b] = lanes[3][b] = 0;
            }
        }
        for (; i < count; ++i) row[code[i]] += step;
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
            const auto search = [&](std::size_t c, std::size_t first, std::size_t count) {
                own.search(c, count, codes + (channel + c) * view.samples + first);
            };
            if (!own.walk(view, nullptr, channel, width, search)) finite = false;
        }
    });
    return finite;
}

namespace {

// Samples class after class, each class in order of the samples: counters of one class stay in the
// first-level cache however many classes there are. Empty where it does not pay: where samples lie
// together in memory, or a class has but a few.
std::vector<std::uint32_t> order_by_class(const View& view, const Labels& labels) {
    const std::ptrdiff_t step = view.sample_stride < 0 ? -view.sample_stride : view.sample_stride;
    if (step < 64 || labels.count < 8 * labels.classes) return {};
    std::vector<std::uint32_t> next(labels.classes + 1, 0), order(labels.count);
    for (std::size_t i = 0; i < labels.count; ++i) ++next[static_cast<std::size_t>(labels.data[i]) + 1];
    for (std::size_t k = 0; k < labels.classes; ++k) next[k + 1] += next[k];
    for (std::size_t i = 0; i < labels.count; ++i)
        order[next[static_cast<std::size_t>(labels.data[i])]++] = static_cast<std::uint32_t>(i);
    return order;
}

// Adds `step`, modulo 2^32, per sample: 1, or 2^32 - 1 to take the same samples out again.
bool add_steps(const View& view, const float* thresholds, std::size_t threshold_count, const Labels& labels,
               std::uint32_t step, std::uint32_t* counts, std::size_t threads) {
    const std::size_t bins = threshold_count + 1;
    const std::size_t table_size = labels.classes * bins;
    const std::vector<std::uint32_t> order = order_by_class(view, labels);
    const std::uint32_t* by_class = order.empty() ? nullptr : order.data();
    threads = resolve_threads(threads);
    std::vector<Scratch> scratch(threads);
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block_channels, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        for (std::size_t channel = begin; channel < end; channel += block_channels) {
            const std::size_t width = std::min(block_channels, end - channel);
            own.take_edges(thresholds + channel * threshold_count, threshold_count, width);
            const auto tally = [&](std::size_t c, std::size_t first, std::size_t count) {
                std::uint32_t* table = counts + (channel + c) * table_size;
                own.search(c, count, own.codes);
                if (by_class == nullptr) {
                    for (std::size_t i = 0; i < count; ++i)
                        table[static_cast<std::size_t>(labels.data[first + i]) * bins + own.codes[i]] += step;
                    return;
                }
                for (std::size_t i = 0; i < count;) {
                    const std::int32_t label = labels.data[by_class[first + i]];
                    std::size_t stop = i + 1;
                    if (labels.data[by_class[first + count - 1]] == label) stop = count;
                    while (stop < count && labels.data[by_class[first + stop]] == label) ++stop;
                    own.tally(own.codes + i, stop - i, bins, step, table + static_cast<std::size_t>(label) * bins);
                    i = stop;
                }
            };
            if (!own.walk(view, by_class, channel, width, tally)) finite = false;
        }
    });
    return finite;
}

}  // namespace

bool add_counts(const View& view, const float* thresholds, std::size_t threshold_count,
                const Labels& labels, std::uint32_t* counts, std::size_t threads) {
    check_sizes(threshold_count + 1, labels);
    if (add_steps(view, thresholds, threshold_count, labels, 1, counts, threads)) return true;
    // NaN and infinities get codes like any value, so the same walk takes everything out again.
    add_steps(view, thresholds, threshold_count, labels, 0xffffffffu, counts, threads);
    return false;
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
