#include "dense.hpp"

#include <algorithm>
#include <cmath>

#include "edgeprune/parallel.hpp"
#include "kernels.hpp"

namespace edgeprune {
namespace {

constexpr std::size_t rows_per_tile = 4;
constexpr std::size_t columns_per_tile = 8;
constexpr std::size_t sweep_block = 48;

}  // namespace

std::size_t padded(std::size_t size) {
    // Odd multiples of a cache line: rows of a panel do not fall into the same cache sets.
    const std::size_t lines = (size + columns_per_tile - 1) / columns_per_tile;
    return (lines | 1) * columns_per_tile;
}

void add_products(double* matrix, std::size_t ld, std::size_t size, double scale, const double* left,
                  const double* right, std::size_t pitch, std::size_t terms, std::size_t threads) {
    if (terms == 0) return;
    const std::size_t tile_count = (size + rows_per_tile - 1) / rows_per_tile;
    const auto product_tile = kernels().product_tile;
    parallel_for(tile_count, 8, threads, [&](std::size_t begin, std::size_t end, std::size_t) {
        double tile[rows_per_tile][columns_per_tile];
        for (std::size_t which = begin; which < end; ++which) {
            const std::size_t r0 = which * rows_per_tile;
            const std::size_t r1 = std::min(size, r0 + rows_per_tile);
            for (std::size_t c0 = r0 / columns_per_tile * columns_per_tile; c0 < size; c0 += columns_per_tile) {
                const std::size_t c1 = std::min(size, c0 + columns_per_tile);
                product_tile(left + r0, right + c0, pitch, terms, tile);
                for (std::size_t r = r0; r < r1; ++r)
                    for (std::size_t c = std::max(r, c0); c < c1; ++c)
                        matrix[r * ld + c] += scale * tile[r - r0][c - c0];
            }
        }
    });
}

bool invert_small(double* matrix, std::size_t size, std::vector<double>& scratch) {
    const std::size_t n = size;
    for (std::size_t j = 0; j < n; ++j)  // lower Cholesky factor, row by row
        for (std::size_t i = 0; i <= j; ++i) {
            double sum = matrix[j * n + i];
            for (std::size_t k = 0; k < i; ++k) sum -= matrix[j * n + k] * matrix[i * n + k];
            if (i < j) {
                matrix[j * n + i] = sum / matrix[i * n + i];
            } else {
                if (!(sum > 0) || !std::isfinite(sum)) return false;
                matrix[j * n + j] = std::sqrt(sum);
            }
        }
    scratch.assign(n * n, 0.0);  // row c holds column c of the factor's inverse
    for (std::size_t c = 0; c < n; ++c) {
        scratch[c * n + c] = 1 / matrix[c * n + c];
        for (std::size_t r = c + 1; r < n; ++r) {
            double sum = 0;
            for (std::size_t k = c; k < r; ++k) sum -= matrix[r * n + k] * scratch[c * n + k];
            scratch[c * n + r] = sum / matrix[r * n + r];
        }
    }
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = 0; c <= r; ++c) {
            double sum = 0;
            for (std::size_t k = r; k < n; ++k) sum += scratch[r * n + k] * scratch[c * n + k];
            matrix[r * n + c] = matrix[c * n + r] = sum;
        }
    return true;
}

// Sweeping the pivots K turns A into: A_KK -> -inv(A_KK), A_Ko -> inv(A_KK) A_Ko,
// A_oo -> A_oo - A_oK inv(A_KK) A_Ko, whether or not o was swept before. After all, A is -inverse.
bool invert_upper(double* matrix, std::size_t size, std::size_t threads) {
    const std::size_t n = size;
    const std::size_t pitch = padded(n);
    std::vector<double> rows(sweep_block * pitch), solved(sweep_block * pitch), pivot, scratch;
    for (std::size_t first = 0; first < n; first += sweep_block) {
        const std::size_t k = std::min(sweep_block, n - first);
        for (std::size_t t = 0; t < k; ++t)
            for (std::size_t c = 0; c < n; ++c) {
                const std::size_t p = first + t;
                rows[t * pitch + c] = c < p ? matrix[c * n + p] : matrix[p * n + c];
            }
        pivot.assign(k * k, 0.0);
        for (std::size_t t = 0; t < k; ++t)
            for (std::size_t s = 0; s < k; ++s) pivot[t * k + s] = rows[t * pitch + first + s];
        if (!invert_small(pivot.data(), k, scratch)) return false;
        std::fill(solved.begin(), solved.end(), 0.0);
        for (std::size_t t = 0; t < k; ++t)
            for (std::size_t s = 0; s < k; ++s)
                kernels().add_scaled(pivot[t * k + s], rows.data() + s * pitch, solved.data() + t * pitch, n);
        add_products(matrix, n, n, -1, rows.data(), solved.data(), pitch, k, threads);
        for (std::size_t t = 0; t < k; ++t) {
            const std::size_t p = first + t;
            for (std::size_t c = 0; c < first; ++c) matrix[c * n + p] = solved[t * pitch + c];
            for (std::size_t c = first + k; c < n; ++c) matrix[p * n + c] = solved[t * pitch + c];
            for (std::size_t s = t; s < k; ++s) matrix[p * n + first + s] = -pivot[t * k + s];
        }
    }
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t c = r; c < n; ++c) matrix[r * n + c] = -matrix[r * n + c];
    return true;
}

}  // namespace edgeprune
