#include "edgeprune/edges.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "edgeprune/parallel.hpp"

namespace edgeprune {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class T>
T entry_of(float threshold) {
    if constexpr (std::is_same_v<T, float>) return threshold;
    else return static_cast<T>(key_of(std::bit_cast<std::uint32_t>(threshold)) - 1);
}

}  // namespace

template <class T>
SearchTable<T> make_table(const float* thresholds, std::size_t count) {
    if (count > max_thresholds) throw std::invalid_argument("more than 255 thresholds");
    SearchTable<T> table;
    table.depth = 0;
    while ((std::size_t{1} << table.depth) < count) ++table.depth;
    const std::size_t core = (std::size_t{1} << table.depth) - 1;
    table.last = entry_of<T>(count > core ? thresholds[count - 1] : infinity);
    std::fill(std::begin(table.level), std::end(table.level), entry_of<T>(infinity));
    for (std::uint32_t l = 0; l < table.depth; ++l)
        for (std::size_t i = 0; i < (std::size_t{1} << l); ++i) {
            const std::size_t sorted = ((2 * i + 1) << (table.depth - l - 1)) - 1;
            table.level[(std::size_t{1} << l) - 1 + i] = entry_of<T>(sorted < count ? thresholds[sorted] : infinity);
        }
    return table;
}

template SearchTable<float> make_table<float>(const float*, std::size_t);
template SearchTable<std::int16_t> make_table<std::int16_t>(const float*, std::size_t);

bool on_grid(const float* thresholds, std::size_t count) {
    return std::all_of(thresholds, thresholds + count, [](float threshold) {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(threshold);
        // -0 reaches a threshold of +0 but has the lower key.
        return bits != 0 && (bits & 0xffffu) == (bits >> 31 ? 0xffffu : 0u);
    });
}

namespace {

using Key = std::int16_t;

// The least float whose key is `key`.
float cell_begin(int key) {
    const std::uint32_t upper = static_cast<std::uint32_t>(key < 0 ? key ^ 0x7fff : key) & 0xffffu;
    return std::bit_cast<float>(key < 0 ? upper << 16 | 0xffffu : upper << 16);
}

class QuantileEdges {
public:
    explicit QuantileEdges(std::size_t bins) : bins_(bins), counts_(cells, 0), seen_(cells / group, 0) {}

    // values() gives the floats behind the keys; it is asked for only where a cell is too coarse.
    template <class Values>
    void find(const Key* keys, std::size_t count, Values&& values, float* thresholds) {
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t cell = static_cast<std::size_t>(keys[i] + middle);
            ++counts_[cell];
            seen_[cell / group] = 1;
        }
        const std::size_t zeros = counts_[middle - 1] + counts_[middle];
        counts_[middle - 1] = counts_[middle] = 0;
        std::size_t negative = 0;
        for (int g = 0; g < middle / group; ++g)
            if (seen_[static_cast<std::size_t>(g)]) negative += sum_of<group>(counts_.data() + g * group);
        const std::size_t positive = count - zeros - negative;
        const std::size_t either = negative + positive;
        std::size_t below = 1;
        if (either != 0) below = std::clamp<std::size_t>((bins_ * negative + either / 2) / either, 1, bins_ - 1);

        out_ = thresholds;
        cut(keys, count, values, 0, middle, negative, below);
        *out_++ = std::bit_cast<float>(zero_begin_bits);
        *out_++ = std::bit_cast<float>(zero_end_bits);
        cut(keys, count, values, middle, cells, positive, bins_ - below);
        out_ = std::unique(thresholds, out_);
        std::fill(out_, thresholds + bins_, infinity);
    }

private:
    static constexpr int cells = 1 << 16;
    static constexpr int middle = 1 << 15;  // the cell of key 0
    static constexpr int group = 64;        // cells that are skipped together where nothing was seen
    static constexpr int few = 8;           // cells that are passed together where no threshold falls
    static constexpr std::size_t enough = 32;  // sketched samples to tell quantiles within a cell

    template <int many>
    static std::size_t sum_of(const std::uint32_t* counts) {  // of samples, of which there are fewer than 2^32
        std::uint32_t sum = 0;
        for (int i = 0; i < many; ++i) sum += counts[i];
        return sum;
    }

    // Cut the `total` values of cells begin..end-1 into `parts` of equal mass, and clear the cells.
    template <class Values>
    void cut(const Key* keys, std::size_t count, Values& values, int begin, int end, std::size_t total,
             std::size_t parts) {
        const std::size_t heavy = total / parts;
        std::size_t below = 0;
        std::size_t next = 1;
        std::size_t rank = next < parts ? next * total / parts : count;
        for (int first = begin; first < end; first += group) {
            char& seen = seen_[static_cast<std::size_t>(first / group)];
            if (!seen) continue;
            seen = 0;
            for (int cell = first; cell < first + group; ++cell) {
                if (cell % few == 0) {
                    const std::size_t inside = sum_of<few>(counts_.data() + cell);
                    if (rank >= below + inside) {  // no threshold among these
                        std::fill_n(counts_.data() + cell, few, 0u);
                        below += inside;
                        cell += few - 1;
                        continue;
                    }
                }
                std::uint32_t& inside_count = counts_[static_cast<std::size_t>(cell)];
                const std::size_t inside = inside_count;
                inside_count = 0;
                if (rank < below + inside) {
                    // A channel with one exact threshold is searched, not looked up. Of few samples a bin's share
                    // is so noisy that the cell's begin is as good, unless it holds several.
                    const bool exact = inside > heavy && (inside >= enough || inside > 3 * heavy);
                    if (exact) sort_cell(keys, count, values(), static_cast<Key>(cell - middle));
                    do {
                        *out_++ = exact ? members_[rank - below] : cell_begin(cell - middle);
                        ++next;
                        rank = next < parts ? next * total / parts : count;
                    } while (rank < below + inside);
                }
                below += inside;
            }
        }
    }

    void sort_cell(const Key* keys, std::size_t count, const float* values, Key key) {
        members_.clear();
        for (std::size_t i = 0; i < count; ++i)
            if (keys[i] == key) members_.push_back(values[i]);
        std::sort(members_.begin(), members_.end());
    }

    std::size_t bins_;
    std::vector<std::uint32_t> counts_;
    std::vector<char> seen_;
    std::vector<float> members_;
    float* out_ = nullptr;
};

}  // namespace

bool find_edges(const View& view, const std::uint32_t* rows, std::size_t row_count, std::size_t bins,
                float* thresholds, std::size_t threads) {
    if (bins < 2 || bins > max_thresholds) throw std::invalid_argument("bins must be 2..255");
    const std::size_t width = fair_block(view.channels, resolve_threads(threads), 64);
    threads = crew_size(threads, view.channels, width);
    struct Scratch {
        QuantileEdges edges;
        std::vector<Key> keys;
        std::vector<float> floats;
    };
    std::vector<Scratch> scratch(threads, Scratch{QuantileEdges(bins), {}, {}});
    std::atomic<bool> finite{true};
    const std::size_t pitch = row_count + 32;
    parallel_for(view.channels, width, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        Scratch& own = scratch[worker];
        own.keys.resize(pitch * width);
        for (std::size_t channel = begin; channel < end; channel += width) {
            const std::size_t here = std::min(width, end - channel);
            if (!load_tile(view, rows, 0, row_count, channel, here, own.keys.data(), pitch)) {
                finite = false;
                return;
            }
            bool have_floats = false;
            for (std::size_t c = 0; c < here; ++c) {
                const auto values = [&]() -> const float* {
                    if (!have_floats) {
                        own.floats.resize(pitch * width);
                        // Read again, and perhaps rewritten meanwhile: a NaN must not reach the sorting.
                        if (!load_tile(view, rows, 0, row_count, channel, here, own.floats.data(), pitch)) {
                            finite = false;
                            std::fill(own.floats.begin(), own.floats.end(), 0.0f);
                        }
                        have_floats = true;
                    }
                    return own.floats.data() + c * pitch;
                };
                own.edges.find(own.keys.data() + c * pitch, row_count, values, thresholds + (channel + c) * bins);
            }
        }
    });
    return finite;
}

}  // namespace edgeprune
