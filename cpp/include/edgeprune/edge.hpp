// Information per connection: how much of I(x;Y) survives the resolution that an output needs.
//
// A connection w carries w*x into a sum that resolves steps of size Delta, so it delivers
// q(x) = floor(x / delta + 1/2) with delta = Delta / |w|. Whatever the weights, an input needs only
// its table of I and H against delta. It is built from a fine histogram of x against the label:
// `cells` equal cells over [-range, range], from which every delta is a re-binning (bin boundaries
// move to the nearest cell boundary, at most 1/64 of the smallest bin). delta runs from range/127,
// the input's own INT8 step, below which nothing finer arrives, to 2*range, above which all values
// share one bin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgeprune/counts.hpp"
#include "edgeprune/view.hpp"

namespace edgeprune {

constexpr std::size_t edge_steps = 256;

// Largest magnitude per channel. False: a value was not finite.
bool find_ranges(const View& view, float* ranges, std::size_t threads);

// counts (channels, classes, cells); values beyond the range go to the outermost cells. cells is even.
// False: a value was not finite; counts are then as they were.
bool add_fine_counts(const View& view, const float* ranges, std::size_t cells, const Labels& labels,
                     std::uint32_t* counts, std::size_t threads);

// Tables from fine counts: information and entropy, each (channels, edge_steps), Miller-Madow corrected.
// Entry s belongs to delta = range / 127 * 254^(s / (edge_steps - 1)).
void edge_tables(const std::uint32_t* counts, std::size_t channels, std::size_t classes, std::size_t cells,
                 double* information, double* entropy, std::size_t threads);

// scores (outputs, channels) = (1 - theta) I + theta H at delta = steps[output] / |weight|, linear in
// log delta between table entries. A zero weight or range delivers nothing: 0.
void edge_scores(const float* ranges, const double* information, const double* entropy, std::size_t channels,
                 const float* weights, const float* steps, std::size_t outputs, double theta, double* scores,
                 std::size_t threads);

}  // namespace edgeprune
