#include "edgeprune/edges.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <stdexcept>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr unsigned cell_shift = 16;

}  // namespace

SearchTable::SearchTable(const float* thresholds, std::size_t count) {
    if (count > max_thresholds) throw std::invalid_argument("more than 255 thresholds");
    depth = 0;
    while (((std::size_t{1} << depth) - 1) + 1 < count) ++depth;
    const std::size_t core = (std::size_t{1} << depth) - 1;
    has_last = count > core;
    last = has_last ? thresholds[count - 1] : infinity;
    std::fill(std::begin(level), std::end(level), infinity);
    for (std::uint32_t l = 0; l < depth; ++l)
        for (std::size_t i = 0; i < (std::size_t{1} << l); ++i) {
            const std::size_t sorted = ((2 * i + 1) << (depth - l - 1)) - 1;
            level[(std::size_t{1} << l) - 1 + i] = sorted < count ? thresholds[sorted] : infinity;
        }
}

QuantileEdges::QuantileEdges(std::size_t bins) : bins_(bins) {
    if (bins < 2 || bins > max_thresholds) throw std::invalid_argument("bins must be 2..255");
    counts_.assign(std::size_t{1} << (31 - cell_shift), 0);
}

// Cut the magnitudes `keys` into `cells` parts of equal mass: cells - 1 picks, increasing.
void QuantileEdges::half(std::vector<std::uint32_t>& keys, std::size_t cells,
                         std::vector<std::uint32_t>& picks) {
    picks.clear();
    if (keys.empty() || cells < 2) return;
    std::uint32_t low = std::numeric_limits<std::uint32_t>::max();
    std::uint32_t high = 0;
    for (const std::uint32_t key : keys) {
        ++counts_[key >> cell_shift];
        low = std::min(low, key);
        high = std::max(high, key);
    }
    const std::size_t heavy = keys.size() / (4 * cells);  // more than a quarter of a bin
    std::size_t below = 0;
    std::size_t next = 1;
    for (std::uint32_t cell = low >> cell_shift; cell <= high >> cell_shift; ++cell) {
        const std::size_t inside = counts_[cell];
        counts_[cell] = 0;
        if (inside == 0) continue;
        bool sorted = false;
        while (next < cells && next * keys.size() / cells < below + inside) {
            if (inside <= heavy) {
                picks.push_back(cell << cell_shift);
            } else {
                if (!sorted) {
                    members_.clear();
                    for (const std::uint32_t key : keys)
                        if (key >> cell_shift == cell) members_.push_back(key);
                    std::sort(members_.begin(), members_.end());
                    sorted = true;
                }
                picks.push_back(members_[next * keys.size() / cells - below]);
            }
            ++next;
        }
        below += inside;
    }
}

void QuantileEdges::find(const float* values, std::size_t count, float* thresholds) {
    negative_.clear();
    positive_.clear();
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(values[i]);
        const std::uint32_t magnitude = bits & 0x7fffffffu;
        if (magnitude == 0) continue;
        (bits >> 31 ? negative_ : positive_).push_back(magnitude);
    }
    const std::size_t signed_count = negative_.size() + positive_.size();
    std::size_t below = 1;
    if (signed_count != 0)
        below = std::clamp<std::size_t>((bins_ * negative_.size() + signed_count / 2) / signed_count, 1, bins_ - 1);

    float* out = thresholds;
    half(negative_, below, picks_);
    // x >= -m is |x| <= m: the smallest magnitude above the pick starts the next cell towards -inf.
    for (auto pick = picks_.rbegin(); pick != picks_.rend(); ++pick)
        *out++ = -std::bit_cast<float>(*pick);
    *out++ = 0.0f;
    *out++ = std::numeric_limits<float>::denorm_min();
    half(positive_, bins_ - below, picks_);
    for (const std::uint32_t pick : picks_) *out++ = std::bit_cast<float>(pick);
    // Picks among the smallest floats may fall together with the atom's thresholds, or be -0.
    std::transform(thresholds, out, thresholds, [](float threshold) { return threshold + 0.0f; });
    std::sort(thresholds, out);
    out = std::unique(thresholds, out);
    std::fill(out, thresholds + bins_, infinity);
}

bool find_edges(const View& view, const std::uint32_t* rows, std::size_t row_count, std::size_t bins,
                float* thresholds, std::size_t threads) {
    constexpr std::size_t width = 16;
    threads = resolve_threads(threads);
    struct Scratch {
        QuantileEdges edges;
        std::vector<float> tile;
    };
    std::vector<Scratch> scratch(threads, Scratch{QuantileEdges(bins), {}});
    std::atomic<bool> finite{true};
    const std::size_t pitch = row_count + 16;
    parallel_for(view.channels, width, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        own.tile.resize(pitch * width);
        for (std::size_t channel = begin; channel < end; channel += width) {
            const std::size_t here = std::min(width, end - channel);
            if (!load_tile(view, rows, 0, row_count, channel, here, own.tile.data(), pitch)) {
                finite = false;
                return;
            }
            for (std::size_t c = 0; c < here; ++c)
                own.edges.find(own.tile.data() + c * pitch, row_count, thresholds + (channel + c) * bins);
        }
    });
    return finite;
}

}  // namespace edgeprune
