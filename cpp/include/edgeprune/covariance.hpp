// Sums and sums of products of a block of samples.
//
// Deterministic: every sum of products runs over the block's samples in order with fused
// multiply-adds in double precision, whatever the threads and the instruction set. float64 is read as it is.
#pragma once

#include <cstddef>

#include "edgeprune/view.hpp"

namespace edgeprune {

// With d = x - shift: sums[i] = sum d_i and products[i, j] = sum d_i d_j over samples first..first+count-1;
// products (channels, channels), both triangles. False: a value was not finite as float32.
bool block_moments(const View& view, std::size_t first, std::size_t count, const double* shift, double* sums,
                   double* products, std::size_t threads);

}  // namespace edgeprune
