// Dense inner loops in double precision, written once over the vector type of each instruction set.
//
// Every sum has one accumulator, runs in order, and uses fused multiply-adds, so the number of lanes
// cannot change a bit of any result. V gives `Vector`, `lanes`, load, store, all and fma (a*b + c).
#pragma once

#include <cmath>
#include <cstddef>

namespace edgeprune {
namespace {

struct ScalarDouble {
    using Vector = double;
    static constexpr std::size_t lanes = 1;
    static Vector load(const double* x) { return *x; }
    static void store(double* x, Vector v) { *x = v; }
    static Vector all(double x) { return x; }
    static Vector fma(Vector a, Vector b, Vector c) { return std::fma(a, b, c); }
};

// out[i][j] = sum over t of left[t * pitch + i] * right[t * pitch + j], for 4 x 8 results
template <class V>
void product_tile(const double* left, const double* right, std::size_t pitch, std::size_t terms, double (*out)[8]) {
    constexpr std::size_t vectors = 8 / V::lanes;
    typename V::Vector sum[4][vectors];
    for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t j = 0; j < vectors; ++j) sum[i][j] = V::all(0);
    for (std::size_t t = 0; t < terms; ++t, left += pitch, right += pitch)
        for (std::size_t i = 0; i < 4; ++i) {
            const typename V::Vector factor = V::all(left[i]);
            for (std::size_t j = 0; j < vectors; ++j)
                sum[i][j] = V::fma(factor, V::load(right + j * V::lanes), sum[i][j]);
        }
    for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t j = 0; j < vectors; ++j) V::store(out[i] + j * V::lanes, sum[i][j]);
}

// y[i] += a * x[i]
template <class V>
void add_scaled(double a, const double* x, double* y, std::size_t count) {
    const typename V::Vector factor = V::all(a);
    std::size_t i = 0;
    for (; i + V::lanes <= count; i += V::lanes) V::store(y + i, V::fma(factor, V::load(x + i), V::load(y + i)));
    for (; i < count; ++i) y[i] = std::fma(a, x[i], y[i]);
}

}  // namespace
}  // namespace edgeprune
