// Codes and joint counts.
//
// Counts are (channels, classes, bins), so one class's bins lie together. They are integers: sums
// over any split of the samples, in any order, on any number of threads or machines, are the same
// bits. Callers guarantee that no channel ever sees more than 2^32 - 1 samples.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeprune/view.hpp"

namespace edgeprune {

constexpr std::uint64_t max_samples = 0xffffffffu;

struct Labels {
    const std::int32_t* data = nullptr;  // one per sample, each in 0..classes-1 (checked by check_labels)
    std::size_t count = 0;
    std::size_t classes = 0;
};

// Index of the first label outside 0..classes-1, or count.
std::size_t check_labels(const Labels& labels);

// codes[channel * samples + sample]; thresholds (channels, threshold_count). False: a value was not finite.
bool encode(const View& view, const float* thresholds, std::size_t threshold_count, std::uint8_t* codes,
            std::size_t threads);

// counts[(channel * classes + label) * bins + code] += 1, straight from activations; bins is
// threshold_count + 1. False: a value was not finite; counts are then as they were.
bool add_counts(const View& view, const float* thresholds, std::size_t threshold_count,
                const Labels& labels, std::uint32_t* counts, std::size_t threads);

// The same from codes of any stride, each below bins (checked: throws invalid_argument).
void add_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                std::size_t samples, std::size_t channels, std::size_t bins, const Labels& labels,
                std::uint32_t* counts, std::size_t threads);

// The same with a weight for every class: counts[channel, k, code] += weights[sample * classes + k]; codes are
// checked as above.
void add_soft_counts(const std::uint8_t* codes, std::ptrdiff_t sample_stride, std::ptrdiff_t channel_stride,
                     std::size_t samples, std::size_t channels, std::size_t bins, const std::uint32_t* weights,
                     std::size_t classes, std::uint32_t* counts, std::size_t threads);

}  // namespace edgeprune
