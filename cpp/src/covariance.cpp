#include "edgeprune/covariance.hpp"

#include <algorithm>
#include <vector>

#include "dense.hpp"
#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {

bool block_moments(const View& view, std::size_t first, std::size_t count, const double* shift, double* sums,
                   double* products, std::size_t threads) {
    threads = resolve_threads(threads);
    const std::size_t channels = view.channels;
    const std::size_t pitch = padded(channels);
    std::vector<float> tile(channels * count);
    if (!load_tile(view, nullptr, first, count, 0, channels, tile.data(), count)) return false;
    std::vector<double> rows(count * pitch, 0.0);  // (samples, channels), padded for whole tiles
    std::fill_n(sums, channels, 0.0);
    for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t s = 0; s < count; ++s) {
            const double d = static_cast<double>(tile[c * count + s]) - shift[c];
            rows[s * pitch + c] = d;
            sums[c] += d;
        }
    std::fill_n(products, channels * channels, 0.0);
    add_products(products, channels, channels, 1, rows.data(), rows.data(), pitch, count, threads);
    for (std::size_t r = 0; r < channels; ++r)
        for (std::size_t c = 0; c < r; ++c) products[r * channels + c] = products[c * channels + r];
    return true;
}

}  // namespace edgeprune
