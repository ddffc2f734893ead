#include "edgeprune/edge.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "edgeprune/estimators.hpp"
#include "edgeprune/parallel.hpp"
#include "fine_table.hpp"

namespace edgeprune {
namespace {

constexpr std::size_t block_channels = 16;
constexpr std::size_t block_samples = 512;
constexpr std::size_t block_pitch = block_samples + 16;
constexpr double finest = 127;          // bins of the finest step on either side of zero
constexpr double span = 2 * finest;     // ratio of the coarsest to the finest step

template <class Visit>
bool for_each_tile(const View& view, std::size_t begin, std::size_t end, std::vector<float>& tile, Visit&& visit) {
    bool finite = true;
    tile.resize(block_channels * block_pitch);
    for (std::size_t channel = begin; channel < end; channel += block_channels) {
        const std::size_t width = std::min(block_channels, end - channel);
        for (std::size_t first = 0; first < view.samples; first += block_samples) {
            const std::size_t count = std::min(block_samples, view.samples - first);
            if (!load_tile(view, nullptr, first, count, channel, width, tile.data(), block_pitch)) finite = false;
            for (std::size_t c = 0; finite && c < width; ++c)
                visit(channel + c, first, count, tile.data() + c * block_pitch);
        }
    }
    return finite;
}

struct TableScratch {
    FineTable table;
    std::vector<std::size_t> bounds;
};

void one_table(const std::uint32_t* counts, std::size_t classes, std::size_t cells, TableScratch& own,
               double* information, double* entropy) {
    own.table.take(counts, classes, cells);
    const std::uint64_t total = own.table.samples();
    if (total == 0) {
        std::fill_n(information, edge_steps, 0.0);
        std::fill_n(entropy, edge_steps, 0.0);
        return;
    }
    const double samples = static_cast<double>(total);
    const FixedSum all = FixedTerm::of(total), columns = own.table.class_term();
    const double used_columns = static_cast<double>(own.table.used_classes());
    const auto nats = [samples](FixedSum plus, FixedSum minus) {  // a difference may be below zero
        return static_cast<double>(static_cast<__int128>(plus - minus)) / FixedTerm::units / samples;
    };
    const double half = static_cast<double>(cells) / 2;
    for (std::size_t s = 0; s < edge_steps; ++s) {
        const double step = half / finest * std::pow(span, static_cast<double>(s) / (edge_steps - 1));
        own.bounds.assign(1, 0);
        for (long bin = -static_cast<long>(half / step + 0.5); ; ++bin) {
            const double at = std::nearbyint((static_cast<double>(bin) + 0.5) * step + half);
            if (at >= static_cast<double>(cells)) break;
            if (at > static_cast<double>(own.bounds.back())) own.bounds.push_back(static_cast<std::size_t>(at));
        }
        own.bounds.push_back(cells);
        FixedSum joint = 0, rows = 0;
        double used_rows = 0, used_cells = 0;
        for (std::size_t b = 0; b + 1 < own.bounds.size(); ++b) {
            const FineTable::Row row = own.table.row(own.bounds[b], own.bounds[b + 1]);
            joint += row.joint;
            rows += FixedTerm::of(row.samples);
            used_rows += row.samples != 0;
            used_cells += static_cast<double>(row.cells);
        }
        information[s] = nats(joint + all, rows + columns) -
                         (used_cells - used_rows - used_columns + 1) / (2 * samples);
        entropy[s] = nats(all, rows) + (used_rows - 1) / (2 * samples);
    }
}

}  // namespace

bool find_ranges(const View& view, float* ranges, std::size_t threads) {
    threads = crew_size(threads, view.channels, block_channels);
    std::vector<std::vector<float>> tiles(threads);
    std::atomic<bool> finite{true};
    parallel_for(view.channels, block_channels, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        std::fill(ranges + begin, ranges + end, 0.0f);
        const bool good = for_each_tile(view, begin, end, tiles[worker],
                                        [&](std::size_t channel, std::size_t, std::size_t count, const float* x) {
                                            float largest = ranges[channel];
                                            for (std::size_t i = 0; i < count; ++i)
                                                largest = std::max(largest, std::abs(x[i]));
                                            ranges[channel] = largest;
                                        });
        if (!good) finite = false;
    });
    return finite;
}

namespace {

// Adds `step`, modulo 2^32, per sample: 1, or 2^32 - 1 to take the same samples out again.
bool add_steps(const View& view, const float* ranges, std::size_t cells, const Labels& labels, std::uint32_t step,
               std::uint32_t* counts, std::size_t threads) {
    threads = crew_size(threads, view.channels, block_channels);
    std::vector<std::vector<float>> tiles(threads);
    std::atomic<bool> finite{true};
    const double half = static_cast<double>(cells) / 2;
    const double top = static_cast<double>(cells - 1);
    parallel_for(view.channels, block_channels, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        const bool good = for_each_tile(
            view, begin, end, tiles[worker],
            [&](std::size_t channel, std::size_t first, std::size_t count, const float* x) {
                const double range = ranges[channel];
                const double scale = range > 0 ? half / range : 0;
                std::uint32_t* table = counts + channel * labels.classes * cells;
                for (std::size_t i = 0; i < count; ++i) {
                    const double at = std::clamp(static_cast<double>(x[i]) * scale + half, 0.0, top);
                    table[static_cast<std::size_t>(labels.data[first + i]) * cells + static_cast<std::size_t>(at)] += step;
                }
            });
        if (!good) finite = false;
    });
    return finite;
}

}  // namespace

bool add_fine_counts(const View& view, const float* ranges, std::size_t cells, const Labels& labels,
                     std::uint32_t* counts, std::size_t threads) {
    if (cells == 0 || cells % 2 != 0) throw std::invalid_argument("cells must be even and positive");
    if (add_steps(view, ranges, cells, labels, 1, counts, threads)) return true;
    add_steps(view, ranges, cells, labels, 0xffffffffu, counts, threads);
    return false;
}

void edge_tables(const std::uint32_t* counts, std::size_t channels, std::size_t classes, std::size_t cells,
                 double* information, double* entropy, std::size_t threads) {
    threads = crew_size(threads, channels, 1);
    std::vector<TableScratch> scratch(threads);
    parallel_for(channels, 1, threads, [&](std::size_t begin, std::size_t end, std::size_t worker) {
        for (std::size_t c = begin; c < end; ++c)
            one_table(counts + c * classes * cells, classes, cells, scratch[worker], information + c * edge_steps,
                      entropy + c * edge_steps);
    });
}

void edge_scores(const float* ranges, const double* information, const double* entropy, std::size_t channels,
                 const float* weights, const float* steps, std::size_t outputs, double theta, double* scores,
                 std::size_t threads) {
    std::vector<double> table(channels * edge_steps), finest_log(channels);
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = (1 - theta) * information[i] + theta * entropy[i];
    for (std::size_t c = 0; c < channels; ++c)
        finest_log[c] = ranges[c] > 0 ? std::log(static_cast<double>(ranges[c]) / finest) : 0;
    const double per_entry = std::log(span) / (edge_steps - 1);
    parallel_for(outputs, 16, resolve_threads(threads), [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t j = begin; j < end; ++j) {
            const double step_log = std::log(static_cast<double>(steps[j]));
            for (std::size_t c = 0; c < channels; ++c) {
                const double magnitude = std::abs(static_cast<double>(weights[j * channels + c]));
                double& score = scores[j * channels + c];
                score = 0;
                if (magnitude == 0 || !(ranges[c] > 0)) continue;
                const double at = (step_log - std::log(magnitude) - finest_log[c]) / per_entry;
                if (at >= edge_steps - 1) continue;  // one bin holds everything
                const double* own = table.data() + c * edge_steps;
                if (at <= 0) {
                    score = own[0];
                    continue;
                }
                const std::size_t low = static_cast<std::size_t>(at);
                const double share = at - static_cast<double>(low);
                score = own[low] * (1 - share) + own[low + 1] * share;
            }
        }
    });
}

}  // namespace edgeprune
