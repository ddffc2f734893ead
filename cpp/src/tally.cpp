#include "tally.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {
namespace {

static_assert(std::endian::native == std::endian::little, "four indices are read as one word");

// A pitch that is no power of two keeps the tile's rows out of each other's cache sets.
constexpr std::size_t float_pitch = 1024 + 16;

std::size_t item_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return 4;
        case Dtype::float64: return 8;
        default: return 2;
    }
}

// Sixteen channels of each sample. Four indices to a load: a byte's load may not pass the counters' stores.
// Channels eight apart in turn: a pair's counters are neighbours.
template <std::size_t pitch>
void count_rows(const std::uint16_t* index, std::size_t count, const std::uint8_t* codes, std::uint32_t* counters) {
    for (const std::uint16_t* end = index + count * group_channels; index != end; index += group_channels)
        for (std::size_t lane = 0; lane < 8; lane += 4) {
            std::uint64_t left, right;
            std::memcpy(&left, index + lane, 8);
            std::memcpy(&right, index + 8 + lane, 8);
            for (std::size_t i = 0; i < 4; ++i, left >>= 16, right >>= 16) {
                const std::size_t code = codes[left & 0xffff], other = codes[right & 0xffff];
                std::uint32_t* own = counters + (lane + i) / 2 * 2 * pitch + i % 2;
                ++own[code * 2];
                ++own[other * 2 + 8 * pitch];
            }
        }
}

}  // namespace

ClassOrder::ClassOrder(const Labels& labels) : samples(labels.count) {
    std::vector<std::uint32_t> next(labels.classes + 1, 0);
    for (std::size_t i = 0; i < labels.count; ++i) ++next[static_cast<std::size_t>(labels.data[i]) + 1];
    for (std::size_t k = 0; k < labels.classes; ++k) {
        next[k + 1] += next[k];
        if (next[k + 1] != next[k]) runs.push_back({next[k], next[k + 1], k});
    }
    for (std::size_t i = 0; i < labels.count; ++i)
        samples[next[static_cast<std::size_t>(labels.data[i])]++] = static_cast<std::uint32_t>(i);
}

std::size_t BlockTally::block_channels(std::size_t channels, std::size_t threads) {
    return fair_block(channels, threads, std::clamp<std::size_t>(channels / (4 * threads) / 64 * 64, 64, 512));
}

BlockTally::BlockTally(std::size_t most_channels)
    : lookups_((most_channels + group_channels - 1) / group_channels), rules_(lookups_.size()) {}

bool BlockTally::lie_together(const View& view, std::ptrdiff_t stride) {
    return stride == static_cast<std::ptrdiff_t>(item_of(view.dtype));
}

void BlockTally::take_edges(const float* thresholds, std::size_t count, std::size_t width) {
    width_ = width;
    if (bins_ != count + 1) {
        bins_ = count + 1;
        for (const std::size_t pitch : {20, 36, 68, 132, 260})
            if (pitch_ = pitch; pitch >= bins_) break;
        counters_.assign(lookups_.size() * group_channels * pitch_, 0);
    }
    thresholds_.clear();
    for (std::size_t c = 0; c < width; ++c) thresholds_.push_back(thresholds + c * count);
    tables_.clear();
    slot_.assign(width, 0);
    exact_.assign(width, 0);
    exact_in_group_.assign(lookups_.size(), 0);
    for (std::size_t g = 0; g * group_channels < width; ++g) {
        const std::size_t first = g * group_channels;
        lookups_[g].build(thresholds + first * count, count, std::min(group_channels, width - first));
        rules_[g] = lookups_[g].rule();
        for (std::size_t c = first; c < std::min(first + group_channels, width); ++c) {
            if (lookups_[g].holds(c - first)) continue;
            exact_[c] = exact_in_group_[g] = 1;
            slot_[c] = tables_.size();
            tables_.push_back(make_table<float>(thresholds_[c], count));
        }
    }
}

bool BlockTally::load_indices(const View& view, std::size_t channel, const ClassOrder& order, std::size_t first,
                              std::size_t count) {
    constexpr std::size_t ahead = 8;  // samples
    const std::size_t item = item_of(view.dtype);
    const std::size_t used = (width_ + group_channels - 1) / group_channels;
    indices_.resize(std::max(indices_.size(), used * group_channels * samples));
    const auto row_of = [&](std::size_t i) {
        return static_cast<const char*>(view.data) + static_cast<std::ptrdiff_t>(order.samples[i]) * view.sample_stride +
               static_cast<std::ptrdiff_t>(channel) * view.channel_stride;
    };
    // Rows that do not lie together, or that a vector would read beyond their end, are copied first; zeros
    // stand for the channels that are not there.
    const bool direct = lie_together(view, view.channel_stride) && width_ % group_channels == 0;
    const std::size_t staged_row = used * group_channels * item;
    if (!direct) staged_.assign(8 * staged_row, 0);
    bool finite = true;
    for (std::size_t i = 0; i < count; i += 8) {
        const char* rows[8];
        const char* next[8];
        const std::size_t here = std::min<std::size_t>(8, count - i);
        for (std::size_t r = 0; r < here; ++r) {
            const std::size_t sample = first + i + r;
            rows[r] = row_of(sample);
            next[r] = row_of(sample + ahead < view.samples ? sample + ahead : sample);
            if (direct) continue;
            char* to = staged_.data() + r * staged_row;
            for (std::size_t c = 0; c < width_; ++c)
                std::memcpy(to + c * item, rows[r] + static_cast<std::ptrdiff_t>(c) * view.channel_stride, item);
            rows[r] = next[r] = to;
        }
        finite &= kernels().index_rows[static_cast<std::size_t>(view.dtype)](
            rows, next, here, rules_.data(), used, indices_.data() + i * group_channels, samples * group_channels);
    }
    return finite;
}

bool BlockTally::search_exact(const View& view, std::size_t channel, const ClassOrder& order, std::size_t first,
                              std::size_t count, std::size_t group) {
    const std::size_t begin = group * group_channels;
    const std::size_t width = std::min(group_channels, width_ - begin);
    floats_.resize(group_channels * float_pitch);
    codes_.resize(std::max(codes_.size(), width_ * samples));
    const bool finite = load_tile(view, order.samples.data() + first, 0, count, channel + begin, width, floats_.data(),
                                  float_pitch);
    for (std::size_t c = 0; c < width; ++c)
        if (exact_[begin + c])
            kernels().floats.search(tables_[slot_[begin + c]], floats_.data() + c * float_pitch, count,
                                    codes_.data() + (begin + c) * samples);
    return finite;
}

void BlockTally::count_group(std::size_t group, std::size_t first, std::size_t count) {
    const std::uint16_t* index = indices_.data() + (group * samples + first) * group_channels;
    const std::uint8_t* codes = lookups_[group].codes();
    switch (pitch_) {
        case 20: count_rows<20>(index, count, codes, counters(group)); break;
        case 36: count_rows<36>(index, count, codes, counters(group)); break;
        case 68: count_rows<68>(index, count, codes, counters(group)); break;
        case 132: count_rows<132>(index, count, codes, counters(group)); break;
        default: count_rows<260>(index, count, codes, counters(group)); break;
    }
    if (!exact_in_group_[group]) return;
    for (std::size_t c = group * group_channels; c < width_ && c < (group + 1) * group_channels; ++c) {
        if (!exact_[c]) continue;
        std::uint32_t* own = counters_of(c);
        own[0] -= static_cast<std::uint32_t>(count);  // the look-up's code 0 for channels left out
        const std::uint8_t* code = codes_.data() + c * samples + first;
        for (std::size_t i = 0; i < count; ++i) ++own[code[i] * 2];
    }
}

const std::uint32_t* BlockTally::take_column(std::size_t c) {
    std::uint32_t* own = counters_of(c);
    for (std::size_t b = 0; b < bins_; ++b) {
        column_[b] = own[b * 2];
        own[b * 2] = 0;
    }
    return column_;
}

bool BlockTally::search_column(const View& view, std::size_t channel, std::size_t c) {
    constexpr std::size_t part = 1024;
    const float* own = thresholds_[c];
    const bool by_key = on_grid(own, bins_ - 1);
    const SearchTable<float> table = make_table<float>(own, bins_ - 1);
    const SearchTable<std::int16_t> keys = make_table<std::int16_t>(own, bins_ - 1);
    codes_.resize(std::max(codes_.size(), view.samples));
    alignas(32) float values[part];
    alignas(32) std::int16_t uppers[part];
    bool finite = true;
    for (std::size_t first = 0; first < view.samples; first += part) {
        const std::size_t count = std::min(part, view.samples - first);
        if (by_key) {
            finite &= load_tile(view, nullptr, first, count, channel, 1, uppers, part);
            kernels().keys.search(keys, uppers, count, codes_.data() + first);
        } else {
            finite &= load_tile(view, nullptr, first, count, channel, 1, values, part);
            kernels().floats.search(table, values, count, codes_.data() + first);
        }
    }
    return finite;
}

// Neighbouring samples often share a code (zero, above all), and an increment must wait for the one
// before it to the same counter: four private counters in turn keep them apart.
void BlockTally::count_column(const std::uint32_t* picked, std::size_t count) {
    std::uint32_t* own = column_;
    std::size_t i = 0;
    if (count >= bins_) {
        for (; i + 4 <= count; i += 4)
            for (std::size_t lane = 0; lane < 4; ++lane) ++in_turn_[lane][codes_[picked[i + lane]]];
        for (std::size_t b = 0; b < bins_; ++b) {
            own[b] += in_turn_[0][b] + in_turn_[1][b] + in_turn_[2][b] + in_turn_[3][b];
            in_turn_[0][b] = in_turn_[1][b] = in_turn_[2][b] = in_turn_[3][b] = 0;
        }
    }
    for (; i < count; ++i) ++own[codes_[picked[i]]];
}

}  // namespace edgeprune
