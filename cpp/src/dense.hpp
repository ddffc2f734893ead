// Dense symmetric matrices in double precision, of which only the upper triangle is kept.
#pragma once

#include <cstddef>
#include <vector>

namespace edgeprune {

// Panels are (terms, pitch) with pitch = padded(size) columns, so that whole tiles can be read.
std::size_t padded(std::size_t size);

// matrix[r * ld + c] += scale * sum over t of left[t][r] * right[t][c], for c >= r.
// The sum of products is formed first, in order of t, and then scaled and added once.
void add_products(double* matrix, std::size_t ld, std::size_t size, double scale, const double* left,
                  const double* right, std::size_t pitch, std::size_t terms, std::size_t threads);

// The upper triangle of a symmetric positive definite matrix becomes that of its inverse, by blocked
// sweeps. False: a pivot was not positive.
bool invert_upper(double* matrix, std::size_t size, std::size_t threads);

// Inverse of a small one, both triangles, by Cholesky. False: it is not positive definite.
bool invert_small(double* matrix, std::size_t size, std::vector<double>& scratch);

}  // namespace edgeprune
