// Histograms of codes, one class after the other, straight from activations.
//
// Samples are visited class by class, so the histograms being counted are those of one class: they
// stay in the first-level cache however many classes there are, and whoever needs only sums over
// classes never holds a whole table. In a row of sixteen neighbouring channels each increment goes to
// another channel's counter, so none waits for the one before it. The counters of two channels alternate, so
// that a vector holds little else than what one class needs. They have 32 bits: processors hand narrower ones
// from store to load more slowly.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "edgeprune/counts.hpp"
#include "edgeprune/edges.hpp"
#include "edgeprune/view.hpp"
#include "lookup.hpp"
#include "run_sums.hpp"

namespace edgeprune {

// Samples class after class, each class in order of the samples, and where each class lies.
struct ClassOrder {
    struct Run {
        std::size_t begin, end, label;
    };
    std::vector<std::uint32_t> samples;
    std::vector<Run> runs;  // of classes that have samples, in order of the labels

    explicit ClassOrder(const Labels& labels);
};

// One thread's tile, look-ups and histograms for a block of channels.
class BlockTally {
public:
    // Memory gives a few long pieces of rows at once several times faster than short pieces one by one, and
    // what a block needs must stay in the caches: at most 512 channels, fewer where threads would idle.
    static std::size_t block_channels(std::size_t channels, std::size_t threads);

    explicit BlockTally(std::size_t most_channels);

    void take_edges(const float* thresholds, std::size_t count, std::size_t width);

    // sink.add_class(channel, label, histogram) for every channel of the block and every class that has samples,
    // classes in order. A sink that sums runs (run_sums.hpp) may instead get add_classes(channel, sums) of
    // several classes together. False: a value was not finite; such values have some code, the same one
    // every time.
    template <class Sink>
    bool walk(const View& view, std::size_t channel, const ClassOrder& order, Sink& sink) {
        // Neighbours in memory are samples of one channel (or there is one channel only): channel by channel.
        const bool by_channel = view.channels == 1 || (lie_together(view, view.sample_stride) &&
                                                       !lie_together(view, view.channel_stride));
        return by_channel ? by_columns(view, channel, order, sink) : by_rows(view, channel, order, sink);
    }

private:
    static constexpr std::size_t samples = 1024;  // of a tile: enough to pay for fetching a group's look-up

    static bool lie_together(const View& view, std::ptrdiff_t stride);
    std::uint32_t* counters(std::size_t group) { return counters_.data() + group * group_channels * pitch_; }
    std::uint32_t* counters_of(std::size_t c) { return counters_.data() + c / 2 * 2 * pitch_ + c % 2; }
    const std::uint32_t* take_column(std::size_t c);
    bool load_indices(const View& view, std::size_t channel, const ClassOrder& order, std::size_t first,
                      std::size_t count);
    bool search_exact(const View& view, std::size_t channel, const ClassOrder& order, std::size_t first,
                      std::size_t count, std::size_t group);
    void count_group(std::size_t group, std::size_t first, std::size_t count);
    bool search_column(const View& view, std::size_t channel, std::size_t c);
    void count_column(const std::uint32_t* picked, std::size_t count);

    template <class Sink>
    bool by_rows(const View& view, std::size_t channel, const ClassOrder& order, Sink& sink) {
        if constexpr (Sink::sums_runs) run_sums_.reset((width_ + group_channels - 1) / group_channels, bins_, pitch_);
        bool finite = true;
        std::size_t tile_run = 0;  // the run that holds the tile's first sample
        for (std::size_t first = 0; first < view.samples; first += samples) {
            const std::size_t end = first + samples < view.samples ? first + samples : view.samples;
            finite &= load_indices(view, channel, order, first, end - first);
            std::size_t run = tile_run;
            for (std::size_t g = 0; g * group_channels < width_; ++g) {
                if (exact_in_group_[g]) finite &= search_exact(view, channel, order, first, end - first, g);
                std::size_t at = first;
                for (run = tile_run; at < end; ++run) {
                    const ClassOrder::Run& own = order.runs[run];
                    const std::size_t stop = own.end < end ? own.end : end;
                    count_group(g, at - first, stop - at);
                    at = stop;
                    if (stop < own.end) break;  // goes on in the next tile
                    if (Sink::sums_runs && own.end - own.begin <= RunSums::longest) {
                        run_sums_.close(g, counters(g), own.end - own.begin);
                        continue;
                    }
                    for (std::size_t c = g * group_channels; c < (g + 1) * group_channels; ++c) {
                        const std::uint32_t* column = take_column(c);  // lanes without a channel count as well
                        if (c < width_) sink.add_class(channel + c, own.label, column);
                    }
                }
            }
            tile_run = run;
        }
        if constexpr (Sink::sums_runs)
            for (std::size_t c = 0; c < width_; ++c) sink.add_classes(channel + c, run_sums_.sums(c));
        return finite;
    }

    template <class Sink>
    bool by_columns(const View& view, std::size_t channel, const ClassOrder& order, Sink& sink) {
        bool finite = true;
        for (std::size_t c = 0; c < width_; ++c) {
            finite &= search_column(view, channel + c, c);
            for (const ClassOrder::Run& run : order.runs) {
                count_column(order.samples.data() + run.begin, run.end - run.begin);
                sink.add_class(channel + c, run.label, column_);
                std::fill_n(column_, bins_, 0u);
            }
        }
        return finite;
    }

    std::size_t bins_ = 0, width_ = 0;
    std::size_t pitch_ = 0;  // of counters: the least that is compiled in and holds the bins
    std::vector<GroupLookup> lookups_;
    std::vector<IndexRule> rules_;
    std::vector<SearchTable<float>> tables_;  // of the channels that no look-up holds
    std::vector<const float*> thresholds_;  // of each channel
    std::vector<std::size_t> slot_;  // of each channel in tables_
    std::vector<char> exact_;        // whether a channel is in tables_
    std::vector<char> exact_in_group_;
    std::vector<std::uint16_t> indices_;  // (group, sample, lane)
    std::vector<float> floats_;
    std::vector<std::uint8_t> codes_;
    std::vector<char> staged_;
    std::vector<std::uint32_t> counters_;    // (pair of channels, code, channel), zero between classes
    std::uint32_t column_[256] = {};         // one channel's
    std::uint32_t in_turn_[4][256] = {};     // zero between uses
    RunSums run_sums_;
};

}  // namespace edgeprune
