#include "edgeprune/covariance.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "dense.hpp"
#include "edgeprune/parallel.hpp"
#include "element.hpp"

namespace edgeprune {
namespace {

// rows[s * pitch + c] = x - shift, the difference taken in double precision: rounding x to float32 first would
// lose what a large offset leaves of it. False: a value was not finite as float32.
bool load_differences(const View& view, std::size_t first, std::size_t count, const double* shift, double* rows,
                      std::size_t pitch) {
    const std::size_t channels = view.channels;
    bool finite = true;
    if (view.dtype != Dtype::float64) {
        std::vector<float> tile(channels * count);
        finite = load_tile(view, nullptr, first, count, 0, channels, tile.data(), count);
        for (std::size_t c = 0; c < channels; ++c)
            for (std::size_t s = 0; s < count; ++s)
                rows[s * pitch + c] = static_cast<double>(tile[c * count + s]) - shift[c];
        return finite;
    }
    for (std::size_t s = 0; s < count; ++s) {
        const char* at =
            static_cast<const char*>(view.data) + static_cast<std::ptrdiff_t>(first + s) * view.sample_stride;
        for (std::size_t c = 0; c < channels; ++c, at += view.channel_stride) {
            double value;
            std::memcpy(&value, at, sizeof value);
            finite &= is_finite(static_cast<float>(value));
            rows[s * pitch + c] = value - shift[c];
        }
    }
    return finite;
}

}  // namespace

bool block_moments(const View& view, std::size_t first, std::size_t count, const double* shift, double* sums,
                   double* products, std::size_t threads) {
    const IeeeFloats ieee;
    threads = resolve_threads(threads);
    const std::size_t channels = view.channels;
    const std::size_t pitch = padded(channels);
    std::vector<double> rows(count * pitch, 0.0);  // (samples, channels), padded for whole tiles
    if (!load_differences(view, first, count, shift, rows.data(), pitch)) return false;
    std::fill_n(sums, channels, 0.0);
    for (std::size_t s = 0; s < count; ++s)
        for (std::size_t c = 0; c < channels; ++c) sums[c] += rows[s * pitch + c];
    std::fill_n(products, channels * channels, 0.0);
    add_products(products, channels, channels, 1, rows.data(), rows.data(), pitch, count, threads);
    for (std::size_t r = 0; r < channels; ++r)
        for (std::size_t c = 0; c < r; ++c) products[r * channels + c] = products[c * channels + r];
    return true;
}

}  // namespace edgeprune
